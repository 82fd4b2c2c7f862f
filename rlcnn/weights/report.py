"""The report of a loading: what happened to every tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlcnn.weights.origin import Origin

NAMED = 3
"""Greatest number of tensors that a line names, so that it stays one line."""


@dataclass(frozen=True)
class LoadReport:
    """What happened to each tensor of an encoder, and of a file."""

    loaded: tuple[str, ...]  # tensors taken from the file without a change
    adapted: Mapping[str, str]  # tensors taken from the file with a change -> the change
    new: tuple[str, ...]  # tensors that the file does not hold; they keep their initialisation
    unused: tuple[str, ...] = ()  # tensors that the encoder does not have, by the file's names
    source: str = ""  # its name in messages
    origin: Origin | None = None  # of the weights; None if only tensors were given
    prefix: str = ""  # removed from the file's names, such as "module."

    def __str__(self) -> str:
        """One line for people."""
        counts = f"{len(self.loaded)} loaded, {len(self.adapted)} adapted, {len(self.new)} new"
        if self.unused:
            counts += f", {len(self.unused)} left unused"
        notes = [f'names without their prefix "{self.prefix}"'] if self.prefix else []
        notes += [f"{name}: {change}" for name, change in _grouped_changes(self.adapted)]
        notes += [f"{group}: new" for group in _grouped(self.new)]
        notes += [f"{group}: left unused" for group in _grouped(self.unused)]
        where = f" from {self.source}" if self.source else ""
        return f"tensors{where}: {counts}" + (f" ({'; '.join(notes)})" if notes else "")

    def to_json(self) -> dict[str, Any]:
        """Every tensor by name, and the origin, as JSON values."""
        return {**asdict(self), "origin": self.origin.to_json() if self.origin else None}


def _grouped(names: Iterable[str]) -> list[str]:
    """Names by their first part: ``classifier.* (2 tensors)``; a single name in full."""
    names = list(names)
    counts = Counter(name.split(".")[0] for name in names)
    alone = {name.split(".")[0]: name for name in names}
    return [f"{part}.* ({n} tensors)" if n > 1 else alone[part] for part, n in counts.items()]


def _grouped_changes(adapted: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each change with the names of its tensors, or their number if there are many."""
    by_change: dict[str, list[str]] = {}
    for name, change in adapted.items():
        by_change.setdefault(change, []).append(name)
    return [
        (", ".join(names) if len(names) <= NAMED else f"{len(names)} tensors", change)
        for change, names in by_change.items()
    ]
