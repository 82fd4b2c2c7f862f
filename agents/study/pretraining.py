"""The cost of the weights that an arm began with, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from envs.errors import UserError
from rlcnn.report.style import counted, duration
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json
from rlcnn.weights.origin import Origin


@dataclass(frozen=True)
class Pretraining:
    """The origin of weights and their cost, with that of the weights they began with.

    ``steps`` are agent steps of the games played for them, ``seconds`` the wall time of all
    trainings; None if unknown. ``notes`` say what is unknown or not counted, one line each.
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


class _Cost(NamedTuple):
    steps: float | None = None
    seconds: float | None = None
    note: str = ""


def pretraining_of(run_dir: Path) -> Pretraining | None:
    """The cost of the weights that an agent's run began with; None if it began without any.

    An encoder costs the agent steps played for its frames, each counted once however many epochs
    it was trained for. An agent costs its steps.
    """
    try:
        origin = Origin.from_json(read_json(run_dir / "weights.json").get("origin"))
    except UserError:
        return None
    if origin is None:
        return None
    costs: list[_Cost] = []
    link: Origin | None = origin
    while link is not None:
        costs += _costs(link)
        link = link.origin
    return Pretraining(
        str(origin),
        _sum([cost.steps for cost in costs]),
        _sum([cost.seconds for cost in costs]),
        tuple(dict.fromkeys(cost.note for cost in costs if cost.note)),
    )


def _costs(link: Origin) -> list[_Cost]:
    """The cost of the training that made the weights, and of the agents that played for it."""
    if link.weights == "imagenet":
        return [_Cost(note="the cost of training on ImageNet is not known")]
    file = Path(link.file)
    if isinstance(link.about.get("run"), str):
        run_dir = Path(link.about["run"])
    elif file.parent.parent.name == "checkpoints":
        run_dir = file.parents[2]
    else:
        return [_Cost(note=f'"{Path(link.weights).name}" does not record how it was made')]
    try:
        run = RunDirectory.open(run_dir)
        summary = run.summary() or {}
    except UserError:
        return [_gone(f"run {run_dir.name}")]
    if "pretraining" not in run.config:
        return [_agent_cost(summary, link.about.get("step"))]
    players = run.config["pretraining"].get("players") or ()
    played = [cost for player in players for cost in _player_costs(Path(player))]
    return [_images_cost(run.config.get("data", {}), summary.get("wall_seconds")), *played]


def _agent_cost(summary: dict[str, Any], step: float | None) -> _Cost:
    whole, seconds = summary.get("steps"), summary.get("wall_seconds")
    steps = step if step is not None else whole
    if steps is None:
        return _Cost(note="an agent's run did not finish")
    if not whole or seconds is None:
        return _Cost(float(steps), note="how long an agent's run took is not known")
    return _Cost(float(steps), float(seconds) * float(steps) / float(whole))


def _player_costs(run_dir: Path) -> list[_Cost]:
    """The cost of an agent that played for the images, and of the weights it began with."""
    try:
        summary = RunDirectory.open(run_dir).summary() or {}
    except UserError:
        return [_gone(f"player {run_dir.name}")]
    costs = [_agent_cost(summary, None)]
    if before := pretraining_of(run_dir):
        costs.append(_Cost(before.steps, before.seconds))
        costs += [_Cost(0.0, 0.0, note) for note in before.notes]
    return costs


def _images_cost(data: dict[str, Any], seconds: float | None) -> _Cost:
    games = (data.get("games") or {}).get("games")
    if not games:
        images = data.get("train", {}).get("images", 0)
        return _Cost(0.0, seconds, f"trained on {images:,} images for which no game was played")
    parts = [part for game in games.values() for part in game.values()]
    steps = sum(part["observations"] + part["duplicates"] for part in parts)
    return _Cost(float(steps), seconds, "the time to play its frames is not counted")


def _gone(what: str) -> _Cost:
    return _Cost(note=f"the {what} no longer exists, so its cost is not known")


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
