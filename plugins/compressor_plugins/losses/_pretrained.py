"""The encoder before fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import InputError
from compressor.model import embeddings, load_pretrained, local_directory
from compressor.model.imprint import same_encoder

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_plugins.losses.contrastive import Contrastive


def pretrained_encoder(options: Contrastive, session: Session, student: nn.Module) -> nn.Module:
    """Load the encoder of PrC; it gets the tokens that are left of the dense model's, so that both read the same rows.

    Raises:
        InputError: there is none, it is the dense model itself, or it is another architecture.
    """
    source = (
        session.source
        if options.pretrained is None
        else local_directory(options.pretrained, options.pretrained_revision)
    )
    families = dict.fromkeys(session.family.model_types, session.family)
    found: Any = load_pretrained(str(source), families, head="feature-extraction")
    ours: Any = student
    dense: Any = session.dense.teacher
    for size in ("hidden_size", "vocab_size"):
        if getattr(found.config, size) != getattr(dense.config, size):
            raise InputError(
                f"loss 'contrastive': the pre-trained encoder {source} has {size} {getattr(found.config, size)}; "
                f"the model has {getattr(dense.config, size)}",
                hint="PrC contrasts with the encoder that the model was fine-tuned from",
            )
    if session.kept_tokens is not None:
        found = embeddings.trimmed(found, session.kept_tokens)
    if options.pretrained is None and same_encoder(found, session.teacher):
        raise InputError(
            "loss 'contrastive': PrC contrasts with the pre-trained encoder, and the run started from the fine-tuned one",
            hint="name the encoder it was fine-tuned from as pretrained, or choose modules: [SnC, FiC]",
        )
    if getattr(ours.base_model, "pooler", None) is None and hasattr(found, "pooler"):
        found.pooler = None  # vectors of the student and of the bank must come from the same place
    encoder: nn.Module = found.to(session.device)
    return encoder
