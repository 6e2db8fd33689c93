"""A metric of the user's own, tried before hours are spent on a model that it could not judge."""

from __future__ import annotations

from functools import partial

import numpy as np

from compressor.model.batches import collate
from compressor.recipe.options import Verification
from compressor.run.calls import NamedMetric, plugin_call
from compressor.run.data import draw_examples
from compressor.run.session import Session
from compressor.verify.evaluate import torch_outputs


def try_metric(session: Session, options: Verification) -> None:
    """Compute the metric of a verify step on the rows that it will see, with random answers: the model runs once.

    Raises:
        CompressorError: it needs what the task's table or these rows do not have, or gives no finite number.
    """
    if options.metric is None or not session.validation:
        return
    rows = draw_examples(session.validation, options.samples, seed=session.seed)
    shaped = torch_outputs(
        session.model, rows[:1], task_output=session.task.output, collate=partial(collate, tokenizer=session.tokenizer)
    )
    draw = np.random.default_rng(session.seed)
    outputs, dense = (draw.standard_normal((len(rows), *shaped.shape[1:])).astype(shaped.dtype) for _ in range(2))
    with plugin_call(session.task, "trying the metric"):
        table = session.task.rows(outputs, dense, rows)
    NamedMetric(options.metric).compute(table)
