"""The two kinds of back ends of ``cap``, and the model they begin with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import InputError
from compressor.model.imprint import same_encoder
from compressor_plugins.methods import _cap_scores, _cap_structured
from compressor_plugins.methods._cap_cuts import check_percentages
from compressor_plugins.methods._source import source_model

if TYPE_CHECKING:
    from compressor.plugin import Pruned
    from compressor.run.session import Session
    from compressor_plugins.methods.cap import Cap


def check(method: Cap, model: nn.Module) -> None:
    """Check that the options suit a model.

    Raises:
        InputError: they do not.
    """
    if not method.structured:
        _cap_scores.chosen_weights(method, model)
        return
    config: Any = model.config
    if not getattr(config, "pruned_shapes", None):
        check_percentages(method, [config.num_attention_heads] * config.num_hidden_layers)


def prune(method: Cap, session: Session) -> Pruned:
    """Run the method on a session.

    Raises:
        InputError: the options do not suit the model.
    """
    begun = replace(session, model=starting_model(method, session))
    if not method.structured:
        return _cap_scores.prune(method, begun)
    check_percentages(method, [group.units for group in begun.groups if group.kind == "heads"])
    return _cap_structured.prune(method, begun, session)


def starting_model(method: Cap, session: Session) -> nn.Module:
    """Return the model that pruning begins with: the session's, or what the run started from, with a new head if it had none.

    Raises:
        InputError: the run started from the dense model, or an earlier step changed the shapes.
    """
    if method.start == "dense":
        return session.model
    found = source_model(session, "start")
    if same_encoder(found, session.teacher):
        raise InputError(
            "cap: start: pre-trained begins with what the run started from, and that is the fine-tuned model itself",
            hint="let a step train make the dense model, from a pre-trained one; or use start: dense",
        )
    return found
