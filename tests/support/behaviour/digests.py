"""SHA-256 digests of what runs leave behind, without what the clock, the place or the version says.

Only files are read, in the formats that users read: safetensors, JSON, JSON lines and CSV.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

# Keys of values that differ between two equal runs. The SHA-256 of a file of weights is one, as
# the file says in which directory its run lay.
VARYING = re.compile(
    r"^time/|seconds|per_second|^t$|^(began|started|when|command|provenance|speeds|versions"
    r"|platform|git_commit|git_dirty|host|pid|sha256)$"
)


def digest_of_tensors(tensors: Mapping[str, np.ndarray]) -> str:
    """Digest of names, types, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        sha.update(np.ascontiguousarray(tensor).tobytes())
    return sha.hexdigest()


def digest_of_json(document: Any, place: Path) -> str:
    """Digest of a JSON document without varying values; paths below ``place`` become relative."""
    text = json.dumps(_constant(document), sort_keys=True)
    return digest_of_text(text, place)


def digest_of_text(text: str, place: Path) -> str:
    """Digest of a text in which paths below ``place`` become relative."""
    return hashlib.sha256(text.replace(str(place), "PLACE").encode()).hexdigest()


def digests_of_run(run: Path, place: Path) -> dict[str, str]:
    """Digests of all that a run of ``train_agent.py`` or ``pretrain_encoder.py`` leaves behind.

    Args:
        run: its directory.
        place: the directory in which everything is recorded; it has another name each time.
    """
    found = {}
    for name in ("config.json", "summary.json", "weights.json"):
        if (run / name).exists():
            found[name] = digest_of_json(json.loads((run / name).read_text()), place)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics.jsonl"] = digest_of_json(rows, place)
    newest = sorted(path for path in (run / "checkpoints").iterdir() if path.name.isdecimal())[-1]
    for path in sorted([*run.glob("*.safetensors"), *newest.glob("*.safetensors")]):
        found[path.relative_to(run).as_posix()] = digest_of_tensors(load_file(path))
    return found


def digest_of_table(path: Path, place: Path) -> str:
    """Digest of a CSV file without its varying columns."""
    with path.open(newline="") as file:
        return digest_of_json(list(csv.DictReader(file)), place)


def _constant(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _constant(item) for key, item in value.items() if not VARYING.search(key)}
    return [_constant(item) for item in value] if isinstance(value, list) else value
