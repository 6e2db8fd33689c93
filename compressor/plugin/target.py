"""What is asked of a pruning method. Importing this module does not import torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kept = Annotated[float, Field(gt=0, le=1)]
AMOUNTS = ("macs", "params", "heads", "layers", "latency", "latency_ms", "sparsity", "vocabulary")


class Target(BaseModel):
    """Exactly one amount, and the shape it is meant for.

    ``macs``, ``params``, ``heads``, ``layers``, ``latency`` and ``vocabulary`` are fractions *kept* of the dense model, in
    (0, 1]; ``sparsity`` is the fraction *removed*, in [0, 1). MACs and latency depend on the length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    macs: Kept | None = Field(default=None, description="Fraction of the encoder's MACs to keep.")
    params: Kept | None = Field(default=None, description="Fraction of the encoder's prunable parameters to keep.")
    heads: Kept | None = Field(default=None, description="Fraction of the attention heads to keep.")
    layers: Kept | None = Field(default=None, description="Fraction of the layers to keep.")
    latency: Kept | None = Field(default=None, description="Latency as a fraction of the dense model's.")
    latency_ms: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Latency in milliseconds.")
    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="Fraction of the targeted weights' elements to remove."
    )
    vocabulary: Kept | None = Field(default=None, description="Fraction of the tokens to keep.")
    sequence: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Tokens per sample that MACs and latency are counted at; default: calibration mean."
    )
    batch: Annotated[int, Field(ge=1)] = Field(default=1, description="Samples per call that latency is measured at.")
    threads: Annotated[int, Field(ge=0)] = Field(
        default=1, description="Intra-op threads that latency is measured with; 0 = onnxruntime's own choice."
    )
    provider: Literal["cpu", "cuda", "tensorrt"] = Field(
        default="cpu", description="Execution provider that latency is measured with."
    )

    @model_validator(mode="after")
    def _exactly_one_amount(self) -> Self:
        given = [name for name in AMOUNTS if getattr(self, name) is not None]
        if len(given) != 1:
            message = f"expected exactly one of {', '.join(AMOUNTS)}; got {', '.join(given) or 'none'}"
            raise ValueError(message)
        return self

    @property
    def amount(self) -> str:
        """Name of the amount that is given, e.g. ``"macs"``."""
        return next(name for name in AMOUNTS if getattr(self, name) is not None)

    @property
    def of_latency(self) -> bool:
        """Whether the amount is a latency, so that one has to be measured."""
        return self.amount in {"latency", "latency_ms"}

    def __repr__(self) -> str:
        """Return the fields that were set, as a call."""
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in sorted(self.model_fields_set))
        return f"Target({given})"

    __str__ = __repr__
