"""Reads back what a run left for Weights & Biases and TensorBoard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def wandb_directories(run: Path) -> list[Path]:
    """W&B's directories of a run's attempts, oldest first."""
    return sorted((run / "wandb").glob("*-run-*"))


def wandb_records(directory: Path) -> list[dict[str, Any]]:
    """What a W&B directory holds, as W&B's own tool reads it."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(directory)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in answer.splitlines()]


def of_type(entries: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The records of a type, such as "run" or "artifact"."""
    return [entry[kind] for entry in entries if entry["type"] == kind]


def history(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that were logged."""
    return [row["item"] for row in of_type(entries, "history")]


def summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary as it is at the end."""
    return {
        key: value for part in of_type(entries, "summary") for key, value in part["update"].items()
    }
