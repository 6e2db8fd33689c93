"""What makes figures doubtful, in words: they are warnings of the report, no gates."""

from __future__ import annotations

from collections.abc import Iterator

from compressor.verify.evaluate import Quality


def doubts(quality: Quality) -> Iterator[str]:
    """Yield what is doubtful about a comparison."""
    if quality.right is None or quality.commonest is None or quality.right > quality.commonest:
        return
    if quality.commonest == 1:
        yield "all labels of these rows are one class, so right answers tell nothing: draw more rows (verify.samples) or others"
        return
    yield (
        f"the dense model has {quality.right:.4f} of the rows right, no more than a model that always answers the commonest "
        f"class ({quality.commonest:.4f}): usually its head is not fine-tuned for this task, or its class ids stand for other "
        "classes than the data's; check label2id in its config.json, and the task's labels"
    )
