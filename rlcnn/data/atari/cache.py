"""Stores collected observations on disk, so that the same games are played only once."""

from __future__ import annotations

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

# Fields of Observations -> their names in files, which stay as they were first written.
_KEYS = {name: name for name in Observations._fields} | {"steps": "ages", "episodes": "matches"}


def cache_path(root: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """The directory of a game's observations, which the JSON values in ``settings`` determine."""
    text = json.dumps(plain(settings), sort_keys=True)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read_cache(path: Path) -> GameFrames | None:
    """Reads what :func:`write_cache` wrote; None if it is missing or damaged."""
    if not path.is_dir() or manifest.flaw(path, contents=True) is not None:
        return None
    counts = read_json(path / _ABOUT)["counts"]
    tensors = safetensors.numpy.load_file(path / _OBSERVATIONS)
    return GameFrames(
        # Mapped, not read: these frames may be copied into a buffer with other games' frames.
        frames=np.load(path / _FRAMES, mmap_mode="c", allow_pickle=False),
        parts={
            part: Observations(**{name: tensors[f"{part}/{key}"] for name, key in _KEYS.items()})
            for part in PARTS
        },
        counts={part: counts[part] for part in PARTS},
    )


def write_cache(path: Path, collected: GameFrames, settings: Mapping[str, Any]) -> None:
    """Writes collected observations, all or nothing.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        try:
            scratch.mkdir(parents=True)
            np.save(scratch / _FRAMES, collected.frames)
            tensors = {
                f"{part}/{key}": getattr(observations, name)
                for part, observations in collected.parts.items()
                for name, key in _KEYS.items()
            }
            safetensors.numpy.save_file(tensors, scratch / _OBSERVATIONS)
            about = {"settings": settings, "counts": collected.counts}
            write_json_atomic(scratch / _ABOUT, about)
            manifest.seal(scratch)
            # An existing directory is damaged, or another process has just written the same.
            shutil.rmtree(path, ignore_errors=True)
            scratch.rename(path)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
