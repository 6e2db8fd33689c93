"""The proof: task metric and latency in onnxruntime, dense against compressed, and the gates on them."""
