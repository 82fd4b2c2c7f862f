"""Labelled images by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.errors import UserError, nearest
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.folders import has_parts, load_folder
from rlcnn.data.images import Split
from rlcnn.data.published import load_cifar10, load_idx

if TYPE_CHECKING:
    from rlcnn.data.atari.dataset import PolicyPlay

FOLDER, ATARI = "folder:", "atari:"
PUBLISHED = ("mnist", "fashion_mnist", "cifar10")


def load_data(
    name: str,
    data_dir: Path = Path("data"),
    *,
    seed: int,
    channels: int | None = None,
    frames: FrameOptions | None = None,
    policies: Mapping[str, PolicyPlay] | None = None,
) -> Split:
    """Images to learn from and images held out.

    Args:
        name: "mnist", "fashion_mnist" or "cifar10"; "folder:DIR", see
            :func:`rlcnn.data.folders.load_folder`; or "atari:GAME[,GAME...]", whose frames the
            emulator makes.
        data_dir: where published sets lie, or are downloaded to, and what was seen of games is
            kept.
        seed: of what is drawn: which images of a folder are held out, which games are played.
        channels: of a folder's images; None as they are.
        frames: how games are played and labelled; None takes the defaults.
        policies: for games that are not to be played at random.

    Raises:
        UserError: the name is unknown; the data are missing, damaged, or cannot be downloaded; a
            class is empty or the only one; games cannot be played with these options.
    """
    check_data_name(name)
    if name.startswith(FOLDER):
        return load_folder(Path(name.removeprefix(FOLDER)), seed=seed, channels=channels)
    if name.startswith(ATARI):
        # The emulator is needed for these alone.
        from rlcnn.data.atari.dataset import play_frames

        games = [game.strip() for game in name.removeprefix(ATARI).split(",")]
        return play_frames(games, frames, seed=seed, data_dir=data_dir, policies=policies)
    if name == "cifar10":
        return load_cifar10(data_dir, seed=seed)
    return load_idx(name, data_dir)


def check_held_out(name: str, seed: int, trained: Mapping[str, Any], weights: str) -> None:
    """Refuses to judge weights by images that they learned from.

    Which images of a folder are held out is drawn by a seed, unless the folder itself says it:
    with another seed than that of the training, most of those held out were learned from.

    Args:
        name: the data to judge by.
        seed: that chooses the images held out.
        trained: ``data`` and ``seed`` of the training, empty where they are not known.
        weights: what to call the weights.

    Raises:
        UserError: the seeds differ and the images are the same.
    """
    data, own = trained.get("data"), trained.get("seed")
    if own in (None, seed) or not (name.startswith(FOLDER) and str(data).startswith(FOLDER)):
        return
    folder, other = (Path(each.removeprefix(FOLDER)) for each in (name, str(data)))
    if folder.resolve() == other.resolve() and not has_parts(folder):
        raise UserError(
            f'"{weights}" learned from images that --seed {seed} holds out of "{folder}": its own'
            f" seed is {own}. A folder with train/ and val/ is the same for all"
        )


def check_data_name(name: str) -> None:
    """Refuses what no data go by.

    Raises:
        UserError: the name is unknown; the nearest is named.
    """
    kind, _, rest = name.partition(":")
    if name in PUBLISHED or (f"{kind}:" in (FOLDER, ATARI) and rest):
        return
    known = (*PUBLISHED, "folder:DIR", "atari:GAME[,GAME...]")
    if name and Path(name).is_dir():
        raise UserError(f'--data "{name}" is a folder: give it as --data "{FOLDER}{name}"')
    near = nearest(name, known) if ":" not in name else nearest(kind + ":", (FOLDER, ATARI))
    raise UserError(f'--data "{name}" is unknown: expected one of {", ".join(known)}.{near}')
