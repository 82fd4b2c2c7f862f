"""Collected observations on disk, so that the same games need not be played again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from rlcnn.data.atari.collecting import PARTS, GameFrames, Observations
from rlcnn.runs import manifest
from rlcnn.runs.files import disk_errors, plain, read_json, write_json_atomic

_FRAMES, _OBSERVATIONS, _ABOUT = "frames.npy", "observations.safetensors", "about.json"


def cache_path(root: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Where a game's observations lie that were collected with these settings.

    Args:
        root: directory of all such.
        name: the game's, which the path begins with.
        settings: everything that decides what is collected, as JSON values.
    """
    text = json.dumps(plain(settings), sort_keys=True)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read_cache(path: Path) -> GameFrames | None:
    """What :func:`write_cache` wrote there; None where there is nothing, or nothing whole."""
    if not path.is_dir() or manifest.flaw(path, contents=True) is not None:
        return None
    counts = read_json(path / _ABOUT)["counts"]
    tensors = safetensors.numpy.load_file(path / _OBSERVATIONS)
    fields = [field.name for field in dataclasses.fields(Observations)]
    return GameFrames(
        # Read as it is needed: it may be copied among the frames of other games.
        frames=np.load(path / _FRAMES, mmap_mode="c", allow_pickle=False),
        parts={part: Observations(**{f: tensors[f"{part}/{f}"] for f in fields}) for part in PARTS},
        counts={part: counts[part] for part in PARTS},
    )


def write_cache(path: Path, collected: GameFrames, settings: Mapping[str, Any]) -> None:
    """Puts collected observations there, whole or not at all.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        try:
            scratch.mkdir(parents=True)
            np.save(scratch / _FRAMES, collected.frames)
            tensors = {
                f"{part}/{name}": values
                for part, observations in collected.parts.items()
                for name, values in vars(observations).items()
            }
            safetensors.numpy.save_file(tensors, scratch / _OBSERVATIONS)
            about = {"settings": settings, "counts": collected.counts}
            write_json_atomic(scratch / _ABOUT, about)
            manifest.seal(scratch)
            # What is there is damaged, or another process was as quick and wrote the same.
            shutil.rmtree(path, ignore_errors=True)
            scratch.rename(path)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
