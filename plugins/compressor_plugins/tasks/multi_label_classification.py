"""Any number of classes for every text, on the user's own rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressor.plugin import hookimpl
from compressor.plugin.components import ProblemType, Split
from compressor_plugins.tasks._named_classes import NamedClasses
from compressor_plugins.tasks._own_texts import OwnTexts

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component
    from compressor_plugins.tasks._classes import Classes


class MultiLabelClassification(NamedClasses, OwnTexts):
    """Texts or pairs of texts with any number of classes each, from files or a data set.

    Every output is a class's own yes or no (Tsoumakas and Katakis 2007, https://doi.org/10.4018/jdwm.2007070101): losses
    are binary cross entropies and divergences the KL of those probabilities, both means over the classes. A class is
    predicted where its probability exceeds ``threshold``. Metrics: ``micro_f1``, which gates compare, ``macro_f1``, and
    ``subset_accuracy``, the fraction of rows with every class right.
    """

    name: ClassVar[str] = "multi-label-classification"

    label: str = Field(
        default="label", description="Column of the classes: lists of names or ids, or texts such as 'spam, insult'."
    )
    separator: str = Field(default=",", min_length=1, description="What is between the classes in a text.")
    labels: tuple[str, ...] | None = Field(
        default=None, min_length=1, description=NamedClasses.model_fields["labels"].description
    )
    threshold: float = Field(default=0.5, gt=0, lt=1, description="Probability above which a class is predicted.")

    @property
    def problem_type(self) -> ProblemType:
        """Independent classes."""
        return "multi_label_classification"

    @property
    def metric(self) -> str:
        """F1 over all classes of all rows."""
        return "micro_f1"

    def load(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None = None
    ) -> Dataset:
        """Return the split's tokenised rows, ``labels`` (C,) 0.0 or 1.0.

        Raises:
            InputError: the rows cannot be read, a column is absent, a label is unknown, or nobody tells the classes.
            SetupError: the hub cannot be reached and has not been read before.
        """
        from compressor_plugins.tasks import _classes, _files

        rows, source = self.read(split)
        texts = self.texts(rows, source)
        values = _files.column(rows, self.label, source=source, option="label")
        classes = self.classes(rows, self.label, label2id=label2id, source=source)
        labels = _classes.indicators(values, classes, separator=self.separator)
        return _files.tokenise(*texts, labels=labels, tokenizer=tokenizer, max_length=self.max_length)

    def judge(self, values: Sequence[Any], classes: Classes) -> None:
        """Check lists of classes, or texts of them."""
        from compressor_plugins.tasks import _classes

        _classes.indicators(values, classes, separator=self.separator)

    def sample_losses(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean binary cross entropy of a row's classes, shape (B,)."""
        from compressor_plugins.tasks import _many_labels

        return _many_labels.sample_losses(z, batch["labels"])

    def divergences(self, z: Tensor, dense: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Return ``temperature**2`` times the mean over classes of the KL of their probabilities, shape (B,)."""
        from compressor_plugins.tasks import _many_labels

        return _many_labels.divergences(z, dense, temperature)

    def curvature(
        self,
        z: Tensor,
        *,
        temperature: float = 1.0,
        draws: int = 1,  # noqa: ARG002 - the contract's; nothing is drawn
        generator: np.random.Generator,  # noqa: ARG002 - the same
    ) -> Tensor:
        """Return every logit, scaled by the root of its curvature, shape (B, C): exact, classes do not interact."""
        from compressor_plugins.tasks import _many_labels

        return _many_labels.curvature(z, temperature)

    def rows(
        self,
        outputs: np.ndarray,
        dense: np.ndarray,  # noqa: ARG002 - the contract's; classes are compared with the labels
        samples: Sequence[Mapping[str, Any]],
    ) -> Mapping[str, np.ndarray]:
        """Return ``outputs``, ``labels`` and ``chosen`` (n, C), and ``predictions`` and ``correct`` (n,), of all classes."""
        from compressor_plugins.tasks import _many_labels

        return _many_labels.table(outputs, samples, self.threshold)

    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return ``micro_f1``, ``macro_f1`` and ``subset_accuracy``."""
        from compressor_plugins.tasks import _many_labels

        return _many_labels.figures(rows)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``multi-label-classification``."""
    yield MultiLabelClassification
