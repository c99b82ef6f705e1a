"""What validation samples: pairs of a class and a real image or clip whose conditions go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cond2img.data import LabelledFrameData
from ctrlgenaug.conditions.clip import ClipConditions
from ctrlgenaug.datasets import Clip
from ctrlgenaug.training.config import ValidationData


@dataclass(frozen=True)
class ValidationPair:
    """A class to ask for, and the sample whose image prior (motion field, trajectories) is used with it.

    Attributes:
        data: the split that the sample is in.
        index: its number there.
        label: the class.
    """

    data: LabelledFrameData
    index: int
    label: str

    @property
    def row(self) -> Clip:
        """The sample's row of the metadata."""
        return self.data.rows[self.index]

    def conditions(self) -> ClipConditions:
        """The sample's conditions, of the class that is asked for."""
        return self.data.conditions(self.index).of_class(self.data.spec.class_id(self.label))


def validation_pairs(
    settings: ValidationData, splits: Sequence[LabelledFrameData]
) -> tuple[list[ValidationPair], list[str]]:
    """The pairs of a config, and the names in it that no split holds.

    Args:
        settings: names (or paths) and labels; without names the first sample of each class is taken, of the classes
            in ``class_labels`` if there are any; without labels each sample's own class.
        splits: where a name is looked for, the first first; samples without a name are the first split's.

    Raises:
        UserError: a label is not a class of the data set.
    """
    spec = splits[0].spec
    for known in settings.class_labels:
        spec.class_id(known)
    pairs, missing = [], []
    asked: Sequence[str | None] = settings.class_labels or [None] * len(settings.names)
    for name, label in zip(settings.names, asked, strict=False):
        found = next(
            ((data, index) for data in splits if (index := data.index_of(Path(name).stem)) is not None), None
        )
        if found is None:
            missing.append(name)
        else:
            data, index = found
            pairs.append(ValidationPair(data, index, label or data.rows[index].cls))
    if not pairs:
        first = {row.cls: index for index, row in reversed(list(enumerate(splits[0].rows)))}
        wanted = settings.class_labels or spec.classes
        pairs = [ValidationPair(splits[0], first[one], one) for one in wanted if one in first]
    return pairs, missing
