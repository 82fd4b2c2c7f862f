"""Labelled images by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.errors import UserError
from rlcnn.data.atari.options import FrameOptions, PolicyPlay
from rlcnn.data.folders import has_parts, load_folder
from rlcnn.data.images import Split
from rlcnn.data.names import ATARI, FOLDER, check_data_name
from rlcnn.data.published import load_cifar10, load_idx


def load_data(
    name: str,
    data_dir: Path = Path("data"),
    *,
    seed: int,
    channels: int | None = None,
    frames: FrameOptions | None = None,
    policies: Mapping[str, PolicyPlay] | None = None,
    consecutive: bool = False,
) -> Split:
    """Loads training and held-out images.

    Args:
        name: "mnist", "fashion_mnist" or "cifar10"; "folder:DIR", see
            :func:`rlcnn.data.folders.load_folder`; or "atari:GAME[,GAME...]", frames from the
            emulator.
        data_dir: directory of published sets, which are downloaded into it, and of cached frames
            of games.
        seed: decides which images of a folder are held out, and how games go.
        channels: channels of a folder's images; None keeps the files' own.
        frames: how games are played and labelled.
        policies: policies that play games; the others are played at random.
        consecutive: for games: whether all observations of each episode are kept, in order.

    Raises:
        UserError: the name is unknown; the data are missing, damaged, or cannot be downloaded; a
            class is empty or the only one; games cannot be played with these options.
    """
    check_data_name(name)
    if name.startswith(FOLDER):
        return load_folder(Path(name.removeprefix(FOLDER)), seed=seed, channels=channels)
    if name.startswith(ATARI):
        # Imported here, since only these data need the emulator.
        from rlcnn.data.atari.dataset import play_frames

        games = [game.strip() for game in name.removeprefix(ATARI).split(",")]
        return play_frames(
            games,
            frames,
            seed=seed,
            data_dir=data_dir,
            policies=policies,
            consecutive=consecutive,
        )
    if data_dir.exists() and not data_dir.is_dir():
        raise UserError(f'--data-dir "{data_dir}" is a file, not a directory')
    if name == "cifar10":
        return load_cifar10(data_dir)
    return load_idx(name, data_dir)


def check_held_out(name: str, seed: int, trained: Mapping[str, Any], weights: str) -> None:
    """Refuses to evaluate weights on images that they were trained on.

    A seed decides which images of a folder are held out, unless the folder has parts. With another
    seed than the training's, most held-out images are training images. ``trained`` holds ``data``
    and ``seed`` of the training of these ``weights``, or nothing if they are unknown.

    Raises:
        UserError: the folders are the same and the seeds differ.
    """
    data, own = trained.get("data"), trained.get("seed")
    if own in (None, seed) or not (name.startswith(FOLDER) and str(data).startswith(FOLDER)):
        return
    folder, other = (Path(each.removeprefix(FOLDER)) for each in (name, str(data)))
    if folder.resolve() == other.resolve() and not has_parts(folder):
        raise UserError(
            f'"{weights}" was trained on images that --seed {seed} holds out of "{folder}": the'
            f" training's seed is {own}. A folder with train/ and val/ has the same split for all"
        )
