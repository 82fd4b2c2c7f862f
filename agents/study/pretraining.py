"""The cost of the weights that an arm began with, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import UserError
from rlcnn.report.style import counted, duration
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json
from rlcnn.weights.origin import Origin

_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Pretraining:
    """The origin of weights and their cost, with that of the weights they began with.

    Attributes:
        origin: in one line.
        steps: agent steps of the games played for them; None if unknown.
        seconds: wall time of all trainings; None if unknown.
        notes: what is unknown or not counted, one line each.
    """

    origin: str
    steps: float | None
    seconds: float | None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The cost in one line."""
        steps = "steps not known" if self.steps is None else f"{counted(self.steps)} agent steps"
        time = "time not known" if self.seconds is None else duration(self.seconds)
        return "; ".join([f"{steps}, {time}", *self.notes])


@dataclass(frozen=True)
class _Cost:
    steps: float | None
    seconds: float | None
    note: str = ""


def pretraining_of(run_dir: Path) -> Pretraining | None:
    """The cost of the weights that a run began with; None if it began without any.

    An encoder costs the agent steps played for its frames, each counted once however many epochs
    it was trained for. An agent costs its steps.

    Args:
        run_dir: run of an agent, whose ``weights.json`` holds the origin.
    """
    try:
        origin = Origin.from_json(read_json(run_dir / "weights.json").get("origin"))
    except UserError:
        return None
    if origin is None:
        return None
    costs = [cost for link in _links(origin) for cost in _costs(link)]
    return Pretraining(
        str(origin),
        _sum([cost.steps for cost in costs]),
        _sum([cost.seconds for cost in costs]),
        tuple(dict.fromkeys(cost.note for cost in costs if cost.note)),
    )


def _links(origin: Origin) -> Iterator[Origin]:
    link: Origin | None = origin
    while link is not None:
        yield link
        link = link.origin


def _costs(link: Origin) -> list[_Cost]:
    """The cost of the training that made the weights, and of the agents that played for it."""
    if link.weights == "imagenet":
        return [_Cost(None, None, "the cost of training on ImageNet is not known")]
    run_dir = _run_of(link)
    if run_dir is None:
        return [_Cost(None, None, f'"{Path(link.weights).name}" does not record how it was made')]
    try:
        run = RunDirectory.open(run_dir)
        summary = run.summary() or {}
    except UserError:
        return [_gone(f"run {run_dir.name}")]
    if "pretraining" not in run.config:
        return [_agent_cost(summary, link.about.get("step"))]
    players = run.config["pretraining"].get("players") or ()
    played = [cost for player in players for cost in _player_costs(player)]
    return [_images_cost(run.config, summary), *played]


def _run_of(link: Origin) -> Path | None:
    """The run that made the weights; None if the file does not record it."""
    if isinstance(link.about.get("run"), str):
        return Path(link.about["run"])
    file = Path(link.file)
    return file.parents[2] if file.parent.parent.name == _CHECKPOINTS else None


def _agent_cost(summary: dict[str, Any], step: Any) -> _Cost:
    whole, seconds = summary.get("steps"), summary.get("wall_seconds")
    steps = step if step is not None else whole
    if steps is None:
        return _Cost(None, None, "an agent's run did not finish")
    if not whole or seconds is None:
        return _Cost(float(steps), None, "how long an agent's run took is not known")
    return _Cost(float(steps), float(seconds) * float(steps) / float(whole))


def _player_costs(run_dir: str) -> list[_Cost]:
    """The cost of an agent that played for the images, and of the weights it began with."""
    try:
        summary = RunDirectory.open(run_dir).summary() or {}
    except UserError:
        return [_gone(f"player {Path(run_dir).name}")]
    before = pretraining_of(Path(run_dir))
    costs = [_agent_cost(summary, None)]
    if before is not None:
        costs.append(_Cost(before.steps, before.seconds))
        costs += [_Cost(0.0, 0.0, note) for note in before.notes]
    return costs


def _images_cost(config: dict[str, Any], summary: dict[str, Any]) -> _Cost:
    seconds = summary.get("wall_seconds")
    data = config.get("data", {})
    games = (data.get("games") or {}).get("games")
    if not games:
        images = data.get("train", {}).get("images", 0)
        note = f"trained on {images:,} images for which no game was played"
        return _Cost(0.0, _number(seconds), note)
    steps = sum(
        part["observations"] + part["duplicates"]
        for game in games.values()
        for part in game.values()
    )
    note = "the time to play its frames is not counted"
    return _Cost(float(steps), _number(seconds), note)


def _gone(what: str) -> _Cost:
    return _Cost(None, None, f"the {what} no longer exists, so its cost is not known")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
