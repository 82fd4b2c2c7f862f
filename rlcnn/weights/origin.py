"""Where weights came from: the file, what it says of its own making, and what that began with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

# What an agent's file says of its training, beside what was said to be kept there ("about").
_OF_AGENTS = ("algorithm", "step")


@dataclass(frozen=True)
class Origin:
    """Where an encoder's weights came from.

    Attributes:
        weights: what was asked for: "imagenet", a file or the directory of a run, as given.
        file: the file that was read, or an address; empty where neither is known.
        sha256: of that file, hexadecimal; empty for an address.
        about: what the file says of how it was made: data, recipe, accuracy, run; of an agent its
            algorithm, step and environment. JSON values.
        origin: where the weights in the file had come from themselves.
    """

    weights: str
    file: str = ""
    sha256: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None

    @classmethod
    def of_file(cls, weights: str, file: Path, metadata: Mapping[str, Any]) -> Self:
        """The origin of weights in a file.

        Args:
            weights: what was asked for.
            file: what was read.
            metadata: what stands in it beside tensors (``rlcnn.weights.load.read_tensors``).
        """
        told = metadata.get("about")
        about = {key: metadata[key] for key in _OF_AGENTS if key in metadata}
        about.update(told if isinstance(told, dict) else {})
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return cls(weights, str(file), digest, about, Origin.from_json(metadata.get("origin")))

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """Reads what :meth:`to_json` wrote; None for anything else."""
        if not isinstance(value, dict) or not isinstance(value.get("weights"), str):
            return None
        about = value.get("about")
        return cls(
            value["weights"],
            str(value.get("file", "")),
            str(value.get("sha256", "")),
            about if isinstance(about, dict) else {},
            Origin.from_json(value.get("origin")),
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {
            "weights": self.weights,
            "file": self.file,
            "sha256": self.sha256,
            "about": dict(self.about),
            "origin": self.origin.to_json() if self.origin else None,
        }

    def __str__(self) -> str:
        """One line for people, the nearest origin first."""
        return ", which began with ".join(link._told() for link in self._chain())

    def _chain(self) -> Iterator[Origin]:
        link: Origin | None = self
        while link is not None:
            yield link
            link = link.origin

    def _told(self) -> str:
        # What is itself a table, as a whole configuration would be, is for the JSON.
        facts = [
            f"{key} {value}"
            for key, value in self.about.items()
            if isinstance(value, str | int | float)
        ]
        if self.sha256:
            facts.insert(0, f"SHA-256 {self.sha256[:12]}")
        elif self.file:
            facts.insert(0, self.file)
        return f'"{self.weights}"' + (f" ({', '.join(facts)})" if facts else "")
