"""The GLUE benchmark, from the hub or from a directory of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compressor.errors import InputError
from compressor.plugin import Glance, hookimpl
from compressor.plugin.components import Split
from compressor_plugins.paths import ExistingDirectory
from compressor_plugins.tasks._classification import ClassificationTask

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component
    from compressor_plugins.tasks._split_files import Published

Name = Literal["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]


@dataclass(frozen=True)
class Subset:
    """One of GLUE's data sets.

    Attributes:
        texts: columns of the sentence or the pair.
        labels: class names by id; none = a score from 0 to 5.
        metrics: as the benchmark defines them, the one that gates compare first.
        validation: name of the validation split.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    validation: str = "validation"


SUBSETS: Mapping[str, Subset] = {
    "cola": Subset(("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    "mnli": Subset(
        ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), validation="validation_matched"
    ),
    "mrpc": Subset(("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "qnli": Subset(("question", "sentence"), ("entailment", "not_entailment")),
    "qqp": Subset(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "rte": Subset(("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "sst2": Subset(("sentence",), ("negative", "positive")),
    "stsb": Subset(("sentence1", "sentence2"), (), ("spearman", "pearson")),
    "wnli": Subset(("sentence1", "sentence2"), ("not_entailment", "entailment")),
}


class Glue(ClassificationTask):
    """Nine sentence tasks with the benchmark's own metrics (Wang et al. 2018, https://arxiv.org/abs/1804.07461).

    Rows come from the hub's ``nyu-mll/glue``, or from ``path``. Where the checkpoint names its classes as GLUE does,
    but in another order, its order wins.
    """

    name: ClassVar[str] = "glue"

    subset: Name = Field(description="Which of GLUE's tasks.")
    path: ExistingDirectory | None = Field(
        default=None,
        description="Directory with <subset>/<split>.<parquet|csv|tsv|json|jsonl>, or the subset's own directory; "
        "default: the hub.",
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch of the hub's data set.")
    train_split: str = Field(default="train", description="Split (without path's file ending) for calibration rows.")
    validation_split: str | None = Field(
        default=None, description="Split for the metric; default: validation, or validation_matched for mnli."
    )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the subset's metrics."""
        return SUBSETS[self.subset].metrics

    @property
    def num_labels(self) -> int:
        """Classes of the subset; 1 for the scores of stsb."""
        return len(SUBSETS[self.subset].labels) or 1

    @property
    def pairs(self) -> bool:
        """Whether the subset's samples are pairs of sentences."""
        return len(SUBSETS[self.subset].texts) > 1

    def _published(self, split: Split) -> tuple[Published, str]:
        """Return the data set, and what a split is called in it."""
        from compressor_plugins.tasks import _split_files

        data = _split_files.Published(f"GLUE's {self.subset}", "nyu-mll/glue", self.subset)
        stem = self.train_split if split == "train" else self.validation_split or SUBSETS[self.subset].validation
        return data, stem

    def glance(self, split: Split, *, label2id: Mapping[str, int] | None = None) -> Glance:
        """Return what is wrong with a split's file in ``path``; the hub is not asked."""
        from compressor_plugins.tasks import _glance, _labels

        subset = SUBSETS[self.subset]

        def judge(values: list[Any], source: str) -> None:
            if subset.labels:
                _labels.class_ids(values, names=subset.labels, label2id=label2id, source=source)
            else:
                _labels.scores(values, low=0.0, high=5.0, source=source)

        data, stem = self._published(split)
        wanted = _glance.Wanted([("path", name) for name in (*subset.texts, "label")], "label", judge)
        return _glance.look_in(self.path, data, (stem, f"{split}_split"), wanted)

    def load(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None = None
    ) -> Dataset:
        """Return the split's tokenised rows.

        Raises:
            InputError: the split, a column or a label is missing from what ``path`` holds.
            SetupError: the hub cannot be reached and has not been read before.
        """
        from compressor_plugins.tasks import _files, _labels, _splits

        subset = SUBSETS[self.subset]
        data, stem = self._published(split)
        rows, source = _splits.read(data, stem, path=self.path, revision=self.revision, option=f"{split}_split")
        labels = _files.column(rows, "label", source=source, option="path")
        if subset.labels:
            if "f1" in subset.metrics and _labels.reordered(subset.labels, label2id):
                raise InputError(
                    f"task 'glue': F1 of {self.subset} is that of class 1, '{subset.labels[1]}', but the checkpoint's "
                    f"label2id is {dict(label2id or {})}",
                    hint="save the checkpoint with its two outputs and label2id in GLUE's order",
                )
            labels = _labels.class_ids(labels, names=subset.labels, label2id=label2id, source=source)
        else:
            labels = _labels.scores(labels, low=0.0, high=5.0, source=source)
        texts = [_files.texts(rows, name, source=source, option="path") for name in subset.texts]
        return _files.tokenise(*texts, labels=labels, tokenizer=tokenizer, max_length=self.max_length)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``glue``."""
    yield Glue
