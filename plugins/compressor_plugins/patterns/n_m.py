"""N:M: in each run of M inputs of an output, the same number of weights goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from compressor.plugin import Component, SparsityPattern, hookimpl

if TYPE_CHECKING:
    from compressor.model.blocks import Blocks


class NM(SparsityPattern):
    """Of each run of ``of`` consecutive inputs of an output, ``keep`` weights stay.

    Written ``2:4`` (or any ``N:M`` with N half of M), ``keep 1 of 4``, or with its options. Plain ``1:4`` is refused: NVIDIA
    counts the weights that stay, neural-compressor those that go. Mishra et al., "Accelerating Sparse Deep Neural
    Networks", 2021, https://arxiv.org/abs/2104.08378. Below the full sparsity every run is either dense or N:M.
    """

    name: ClassVar[str] = "n-m"
    spelling: ClassVar[str] = r"[0-9]+:[0-9]+|keep [0-9]+ of [0-9]+"

    keep: int = Field(default=2, ge=1, description="Weights of a run that stay.")
    of: int = Field(default=4, ge=2, description="Weights of a run.")

    @classmethod
    def spelled(cls, text: str) -> dict[str, Any]:
        """Return the options of ``2:4`` or ``keep 1 of 4``.

        Raises:
            ValueError: ``N:M`` where N is not half of M.
        """
        if text.startswith("keep"):
            _, keep, _, of = text.split()
            return {"keep": int(keep), "of": int(of)}
        one, other = (int(number) for number in text.split(":"))
        if 2 * one != other:
            message = (
                f"'{text}' is ambiguous: NVIDIA's N:M keeps N of M, neural-compressor's removes N of M; "
                f"write 'keep {one} of {other}' or 'keep {max(other - one, 0)} of {other}'"
            )
            raise ValueError(message)
        return {"keep": one, "of": other}

    @model_validator(mode="after")
    def _removes_some(self) -> Self:
        if self.keep >= self.of:
            message = f"expected keep below of; got keep {self.keep} of {self.of}"
            raise ValueError(message)
        return self

    @property
    def label(self) -> str:
        """``2:4``, or ``keep 1 of 4`` where that could be misread."""
        return f"{self.keep}:{self.of}" if 2 * self.keep == self.of else f"keep {self.keep} of {self.of}"

    @property
    def most(self) -> float:
        """The sparsity at which every run is N:M."""
        return 1 - self.keep / self.of

    @property
    def use(self) -> str:
        """What the zeros are good for: sparse tensor cores know 2:4 alone."""
        if (self.keep, self.of) != (2, 4):
            return super().use
        return "sparse tensor cores, through TensorRT or torch's semi-structured kernels, and a compressed download"

    def blocks(self, shape: tuple[int, int]) -> Blocks | None:
        """Return the runs of a weight, None where its inputs do not divide into them."""
        from compressor.model.blocks import Blocks

        return None if shape[1] % self.of else Blocks(1, self.of, self.of - self.keep)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the pattern."""
    yield NM
