"""Options that belong to the core: calibration, verification and its gates."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from compressor.plugin import Choice, Component, Metric

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

Positive = Annotated[float, Field(gt=0)]


class CalibrationOptions(BaseModel):
    """How much of the task's train split a method may look at.

    Attributes:
        samples: rows drawn, unless ``tokens`` is given.
        tokens: rows are drawn until they hold this many tokens.
        batch_size: rows per batch.
        seed: of the draw; in a plan it is always a number, the recipe's own unless given here.
    """

    model_config = FROZEN

    samples: int = Field(default=512, ge=1, description="Rows to draw from the train split.")
    tokens: int | None = Field(default=None, ge=1, description="Draw rows until they hold this many tokens instead.")
    batch_size: int = Field(default=32, ge=1, description="Rows per batch.")
    seed: int | None = Field(default=None, ge=0, description="Seed of the draw; default: the recipe's.")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if {"samples", "tokens"} <= self.model_fields_set and self.tokens is not None:
            message = "expected samples or tokens; got both"
            raise ValueError(message)
        return self

    def options(self) -> dict[str, Any]:
        """Return the options as plain data that validates back."""
        return self.model_dump(mode="json", exclude=None if self.tokens is None else {"samples"})


class Gates(BaseModel):
    """Upper bounds that decide the exit code; what is None is not asked."""

    model_config = FROZEN

    metric_drop: float | None = Field(default=None, ge=0, description="Metric lost, absolute: 0.01 is one point.")
    latency: Positive | None = Field(
        default=None, description="Latency, divided by that of the best dense configuration."
    )
    size: Positive | None = Field(
        default=None, description="Bytes of the ONNX file that was asked for, in int8 after quantize, divided by dense."
    )
    macs: Positive | None = Field(default=None, description="Encoder MACs, compressed divided by dense.")

    def given(self) -> dict[str, float]:
        """Return the bounds that are asked, by name."""
        return self.model_dump(exclude_none=True)

    def __repr__(self) -> str:
        """Return the bounds that are asked, as a call."""
        return f"Gates({', '.join(f'{name}={bound!r}' for name, bound in self.given().items())})"

    __str__ = __repr__


def _tuple(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(value)
    return (value,)


def _one_or_more(least: int) -> Any:
    """Return the markers of ``tuple[int, ...]`` that also takes one number."""
    number = {"type": "integer", "minimum": least}
    schema = {"anyOf": [number, {"type": "array", "items": number, "minItems": 1}]}
    return BeforeValidator(_tuple), Field(min_length=1), WithJsonSchema(schema)


class Verification(Component):
    """The step ``verify``: metric and latency of the exported file in onnxruntime, compressed beside dense."""

    kind: ClassVar[str] = "verification"
    name: ClassVar[str] = "verify"

    batch: Annotated[tuple[Annotated[int, Field(ge=1)], ...], *_one_or_more(1)] = Field(
        default=(1,), description="Samples per call that latency is measured at."
    )
    sequence: Annotated[tuple[Annotated[int, Field(ge=2)], ...], *_one_or_more(2)] = Field(
        default=(128,), description="Tokens per sample that latency is measured at."
    )
    threads: Annotated[tuple[Annotated[int, Field(ge=0)], ...], *_one_or_more(0)] = Field(
        default=(1,), description="Intra-op threads that latency is measured at; 0 = onnxruntime's own choice."
    )
    provider: Literal["cpu", "cuda", "tensorrt", "openvino"] = Field(
        default="cpu",
        description="Execution provider of onnxruntime, or openvino: Intel's runtime (extra openvino) on the same files.",
    )
    rounds: int = Field(default=15, ge=3, description="Rounds of interleaved timing, dense and compressed in turn.")
    samples: int | None = Field(default=None, ge=1, description="Validation rows that are scored; default: all.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Confidence of every interval.")
    metric: Choice[Metric] | None = Field(
        default=None, description="Metric of your own that is reported beside the task's; metric_drop is then of it."
    )
    gates: Gates = Field(default=Gates(), description="Upper bounds that decide the exit code.")
