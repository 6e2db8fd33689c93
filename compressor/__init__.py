"""Turn a fine-tuned transformer encoder into a smaller ONNX model that is faster in onnxruntime, measured."""
