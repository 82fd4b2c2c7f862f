"""Options of a lecture, apart from what draws it: ``--help`` needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from envs.errors import UserError
from rlcnn.config.fields import MAX_COUNT, WHOLE, Flag, check_options
from rlcnn.config.groups import DeviceChoice
from rlcnn.data.names import FOLDER
from rlcnn.runs.directory import RunDirectory
from rlcnn.visualize.gallery.options import check_out

PartName = Literal[
    "counting",
    "networks",
    "lenet",
    "filters",
    "maps",
    "predictions",
    "saliency",
    "depth",
    "neighbours",
    "transfer",
    "style",
    "agent",
]
PART_NAMES: tuple[PartName, ...] = get_args(PartName)

_Length = Annotated[int | None, Interval(ge=1, le=MAX_COUNT), WHOLE]


@dataclass(frozen=True)
class LectureParts:
    """Parts."""

    only: tuple[PartName, ...] = ()
    """Make these parts only: counting, networks, lenet, filters, maps, predictions, saliency,
    depth, neighbours, transfer, style, agent; by default all whose data are given."""
    list: Flag = False
    """Print the parts with their minutes and what they need, and make nothing."""
    force: Flag = False
    """Make parts again that are finished. Finished trainings are kept."""


@dataclass(frozen=True)
class LectureData:
    """Real data."""

    mnist: Path | None = None
    """Directory with the four files of MNIST, as --data-dir of pretrain_encoder.py."""
    cifar10: Path | None = None
    """Directory with CIFAR-10, as --data-dir of pretrain_encoder.py."""
    data: str | None = None
    """Photographs: folder:DIR."""
    labels: Path | None = None
    """CSV with columns file,class_index for the photographs, in that folder or here; by default a
    class is a folder."""
    weights: str | None = None
    """Weights of a network trained on ImageNet: a file, or imagenet, which downloads them."""
    encoder: str = "squeezenet1_0"
    """Network of --weights: a network of torchvision or timm:NAME, without a node."""
    agent: Path | None = None
    """Run directory of a trained agent."""


@dataclass(frozen=True)
class LectureTrainings:
    """Trainings."""

    runs: Path | None = None
    """Directory of the trainings of lenet, depth and transfer, which are made or resumed where they
    are not finished; by default runs in --out."""
    epochs: _Length = None
    """Epochs of each training; by default each part's own."""
    train_size: _Length = None
    """Training images of each training; by default each part's own."""


@dataclass(frozen=True)
class LectureOutput:
    """Output."""

    out: Path = Path("lecture")
    """Directory of the page, index.html, with a directory of PNG and SVG files for each part."""


# The last base comes first in --help.
@dataclass(frozen=True)
class LectureConfig(DeviceChoice, LectureOutput, LectureTrainings, LectureData, LectureParts):
    """The figures of a course on convolutional networks, made from real data."""

    def validate(self) -> None:
        """Checks what can be checked before anything is made.

        Raises:
            UserError: a value is not valid; the line names it and what was expected.
        """
        check_options(self)
        if len(set(self.only)) < len(self.only):
            raise UserError(f"--only {' '.join(self.only)}: give each once")
        for option, place in (("--mnist", self.mnist), ("--cifar10", self.cifar10)):
            _check_directory(option, place)
        if self.data is not None:
            folder = self.data.removeprefix(FOLDER)
            if folder == self.data or not folder:
                raise UserError(f'--data "{self.data}": expected photographs as {FOLDER}DIR')
            _check_directory("--data", Path(folder))
        elif self.labels is not None:
            raise UserError(f"--labels is for photographs: give --data {FOLDER}DIR")
        if self.weights not in (None, "imagenet") and not Path(str(self.weights)).exists():
            raise UserError(f'--weights "{self.weights}" does not exist')
        if ":" in self.encoder.removeprefix("timm:"):
            raise UserError(f'--encoder "{self.encoder}": expected a network without a node')
        if self.agent is not None and "config" not in RunDirectory.open(self.agent).config:
            raise UserError(f'--agent "{self.agent}" is no run of train_agent.py')
        check_out(self.out)


def _check_directory(option: str, place: Path | None) -> None:
    if place is not None and not place.is_dir():
        state = "is a file, not a directory" if place.exists() else "does not exist"
        raise UserError(f'{option} "{place}" {state}')
