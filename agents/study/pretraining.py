"""What the weights that an arm was given had cost, as far as is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import UserError
from rlcnn.report.formatting import counted, duration
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json
from rlcnn.weights.origin import Origin

_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Pretraining:
    """Where weights came from and what making them had cost, with all that they began with.

    Attributes:
        origin: in one line.
        steps: agent steps of the games that were played for it; None where they are not known.
        seconds: wall time of all trainings; None where it is not known.
        notes: what is not known or not counted, in a line each.
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
    """What the weights that a run began with had cost; None where it was given none.

    The frames that an encoder learned from are counted once each, by the agent steps played for
    them, however often it saw them; an agent by its steps.

    Args:
        run_dir: a run of an agent, which keeps the origin in its ``weights.json``.
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
    """What a training that left weights had cost, and those of the agents that played for it."""
    if link.weights == "imagenet":
        return [_Cost(None, None, "what training on ImageNet took is not known")]
    run_dir = _run_of(link)
    if run_dir is None:
        return [_Cost(None, None, f'"{Path(link.weights).name}" does not say how it was made')]
    try:
        run = RunDirectory.open(run_dir)
        summary = run.summary() or {}
    except UserError:
        return [_Cost(None, None, f"the run {run_dir.name} is no longer there to be asked")]
    if "pretraining" not in run.config:
        return [_agent_cost(summary, link.about.get("step"))]
    players = run.config["pretraining"].get("players") or ()
    played = [cost for player in players for cost in _player_costs(player)]
    return [_images_cost(run.config, summary), *played]


def _run_of(link: Origin) -> Path | None:
    """The run whose training left the weights; None where the file does not tell."""
    if isinstance(link.about.get("run"), str):
        return Path(link.about["run"])
    file = Path(link.file)
    return file.parents[2] if file.parent.parent.name == _CHECKPOINTS else None


def _agent_cost(summary: dict[str, Any], step: Any) -> _Cost:
    whole, seconds = summary.get("steps"), summary.get("wall_seconds")
    steps = step if step is not None else whole
    if steps is None:
        return _Cost(None, None, "an agent's run was not finished")
    if not whole or seconds is None:
        return _Cost(float(steps), None, "how long an agent's run took is not known")
    return _Cost(float(steps), float(seconds) * float(steps) / float(whole))


def _player_costs(run_dir: str) -> list[_Cost]:
    """What an agent that played for the images had cost, and the weights it had begun with."""
    try:
        summary = RunDirectory.open(run_dir).summary() or {}
    except UserError:
        told = f"the player {Path(run_dir).name} is no longer there to be asked"
        return [_Cost(None, None, told)]
    before = pretraining_of(Path(run_dir))
    began_with = [] if before is None else [_Cost(before.steps, before.seconds)]
    notes = () if before is None else before.notes
    own = _agent_cost(summary, None)
    return [own, *began_with, *(_Cost(0.0, 0.0, note) for note in notes)]


def _images_cost(config: dict[str, Any], summary: dict[str, Any]) -> _Cost:
    seconds = summary.get("wall_seconds")
    data = config.get("data", {})
    games = (data.get("games") or {}).get("games")
    if not games:
        images = data.get("train", {}).get("images", 0)
        note = f"learned from {images:,} images that no game was played for"
        return _Cost(0.0, _number(seconds), note)
    steps = sum(
        part["observations"] + part["duplicates"]
        for game in games.values()
        for part in game.values()
    )
    note = "the time in which its frames were played is not counted"
    return _Cost(float(steps), _number(seconds), note)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
