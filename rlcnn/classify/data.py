"""Labelled images by name."""

from __future__ import annotations

from pathlib import Path

from envs.errors import UserError, nearest
from rlcnn.classify.folders import load_folder
from rlcnn.classify.frame_options import FrameOptions
from rlcnn.classify.images import (
    UNKNOWN,
    ImageFiles,
    LabelledImages,
    Split,
    StoredImages,
    Task,
)
from rlcnn.classify.published import load_cifar10, load_idx

__all__ = [
    "UNKNOWN",
    "ImageFiles",
    "LabelledImages",
    "Split",
    "StoredImages",
    "Task",
    "check_data_name",
    "load_data",
]

FOLDER, ATARI = "folder:", "atari:"
PUBLISHED = ("mnist", "fashion_mnist", "cifar10")


def load_data(
    name: str,
    data_dir: Path = Path("data"),
    *,
    seed: int,
    channels: int | None = None,
    frames: FrameOptions | None = None,
) -> Split:
    """Images to learn from and images held out.

    Args:
        name: "mnist", "fashion_mnist" or "cifar10"; "folder:DIR", see
            :func:`rlcnn.classify.folders.load_folder`; or "atari:GAME[,GAME...]", whose frames the
            emulator makes.
        data_dir: where published sets lie, or are downloaded to, and what was seen of games is
            kept.
        seed: of what is drawn: which images of a folder are held out, which games are played.
        channels: of a folder's images; None as they are.
        frames: how games are played and labelled; None takes the defaults.

    Raises:
        UserError: the name is unknown; the data are missing, damaged, or cannot be downloaded; a
            class is empty or the only one; games cannot be played with these options.
    """
    check_data_name(name)
    if name.startswith(FOLDER):
        return load_folder(Path(name.removeprefix(FOLDER)), seed=seed, channels=channels)
    if name.startswith(ATARI):
        # The emulator is needed for these alone.
        from rlcnn.classify.frames import play_frames

        games = [game.strip() for game in name.removeprefix(ATARI).split(",")]
        return play_frames(games, frames, seed=seed, data_dir=data_dir)
    if name == "cifar10":
        return load_cifar10(data_dir, seed=seed)
    return load_idx(name, data_dir)


def check_data_name(name: str) -> None:
    """Refuses what no data go by.

    Raises:
        UserError: the name is unknown; the nearest is named.
    """
    kind, _, rest = name.partition(":")
    if name in PUBLISHED or (f"{kind}:" in (FOLDER, ATARI) and rest):
        return
    known = (*PUBLISHED, "folder:DIR", "atari:GAME[,GAME...]")
    near = nearest(name, known) if ":" not in name else nearest(kind + ":", (FOLDER, ATARI))
    raise UserError(f'--data "{name}" is unknown: expected one of {", ".join(known)}.{near}')
