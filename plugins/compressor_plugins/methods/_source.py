"""The model that a run started from, for methods that go back to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.errors import InputError
from compressor.model import embeddings, load_pretrained, max_positions

if TYPE_CHECKING:
    from compressor.run.session import Session


def source_model(session: Session, option: str) -> nn.Module:
    """Return the checkpoint that the run started from, frozen, with a new head where it has none, and the tokens that are left.

    Args:
        session: whose source it is.
        option: of the method, for the message.

    Raises:
        InputError: an earlier step changed the shapes, so that there is no way back.
    """
    torch.manual_seed(session.seed)  # of a new head
    dense: Any = session.teacher
    found = load_pretrained(
        str(session.source),
        dict.fromkeys(session.family.model_types, session.family),
        head=session.task.head,
        num_labels=dense.config.num_labels if session.task.head == "sequence-classification" else None,
        new_head=True,
    )
    if session.kept_tokens is not None:
        longest = max_positions(session.model)
        found = embeddings.trimmed(found, session.kept_tokens, longest if longest < max_positions(found) else None)
    own, now = ({name: tensor.shape for name, tensor in m.named_parameters()} for m in (found, session.model))
    if own != now:
        raise InputError(
            f"{option}: an earlier step removed parts of the model, and the weights that the run started from do not fit it any more",
            hint=f"let this step be the first that prunes, or leave {option} out",
        )
    return found.to(session.device).requires_grad_(False)
