"""The conformance kit, tiny models and sessions: for our tests and for those of plugin authors.

Every contract has one assertion that a plugin's test calls in one line: ``assert_method_conforms(MyMethod(...))``.
"""

from compressor.testing.criteria import assert_criterion_conforms, assert_pattern_conforms
from compressor.testing.declarations import assert_declaration_conforms
from compressor.testing.equalities import (
    assert_masked_equals_shrunk,
    assert_onnx_equals_torch,
    assert_skipped_equals_dropped,
)
from compressor.testing.families import assert_family_conforms
from compressor.testing.files import assert_exporter_conforms, assert_quantizer_conforms
from compressor.testing.losses import assert_loss_conforms
from compressor.testing.methods import assert_method_conforms
from compressor.testing.metrics import assert_metric_conforms
from compressor.testing.sessions import TinyLabels, TinyTexts, named_plan, session_on, tiny_session
from compressor.testing.tasks import assert_task_conforms
from compressor.testing.tiny import (
    WORDS,
    example_masks,
    tiny_batch,
    tiny_checkpoint,
    tiny_model,
    tiny_tokenizer,
)

__all__ = [
    "WORDS",
    "TinyLabels",
    "TinyTexts",
    "assert_criterion_conforms",
    "assert_declaration_conforms",
    "assert_exporter_conforms",
    "assert_family_conforms",
    "assert_loss_conforms",
    "assert_masked_equals_shrunk",
    "assert_method_conforms",
    "assert_metric_conforms",
    "assert_onnx_equals_torch",
    "assert_pattern_conforms",
    "assert_quantizer_conforms",
    "assert_skipped_equals_dropped",
    "assert_task_conforms",
    "example_masks",
    "named_plan",
    "session_on",
    "tiny_batch",
    "tiny_checkpoint",
    "tiny_model",
    "tiny_session",
    "tiny_tokenizer",
]
