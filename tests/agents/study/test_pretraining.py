"""The cost of the weights that an arm began with, and its place on the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.study_pages import page_of, study, text_of, well

from agents.study.pretraining import pretraining_of
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import write_json_atomic


def pretrained(path: Path, players: Sequence[str] = (), **about: Any) -> dict[str, Any]:
    """A pretraining on 1,000 frames, 100 of them duplicates, and the origin of its weights."""
    part = {"observations": 500, "games": 3, "duplicates": 50}
    config = {
        "pretraining": {"players": [*players]},
        "data": {"train": {"images": 500}, "games": {"games": {"Pong": {"a": part, "b": part}}}},
    }
    with RunDirectory.create(path, config) as run:
        run.write_summary({"wall_seconds": 600.0})
    return {
        "weights": str(path),
        "file": str(path / "best.safetensors"),
        "sha256": "a1" * 32,
        "about": {"data": "atari:Pong", "run": str(path), **about},
        "origin": None,
    }


def test_the_cost_of_pretraining_is_added(tmp_path: Path) -> None:
    weights = tmp_path / "<balls>.safetensors"
    weights.touch()
    arm = "frozen:<balls>"
    origin = pretrained(tmp_path / "pretraining")
    ends = {"scratch": 15.0, arm: 15.0}
    path, plan = study(
        tmp_path,
        lambda run: ends[run.arm] + run.seed,
        *("scratch", f"frozen:{weights}"),
        origins={arm: origin},
    )
    text = text_of(page_of(path, plan))
    assert "1,100 agent steps, 10 min" in text
    assert "data atari:Pong" in text
    assert f"SHA-256 {'a1' * 6}" in text
    # Equal but for the pretraining: 1,100 steps later, and 600 seconds.
    rows = re.search(
        rf"{arm}\s+agent steps.*?steps with pretraining(.*?)wall time.*?wall time with"
        r" pretraining(.*?)The curves",
        text,
        re.DOTALL,
    )
    assert rows
    assert "\N{MINUS SIGN}1,100 [" in rows[1]
    assert "\N{MINUS SIGN}10 min [" in rows[2]


@pytest.mark.parametrize(
    "origin, message",
    [
        (
            {"weights": "imagenet", "about": {"data": "ImageNet"}},
            "the cost of training on ImageNet",
        ),
        ({"weights": "/x/w.pth", "file": "/x/w.pth"}, '"w.pth" does not record how it was made'),
        (
            {"weights": "/x/gone", "about": {"run": "/x/gone"}},
            "the run gone no longer exists",
        ),
    ],
)
def test_an_unknown_cost_is_named(tmp_path: Path, origin: dict[str, Any], message: str) -> None:
    path, plan = study(
        tmp_path, well, "scratch", "frozen:imagenet", origins={"frozen:imagenet": origin}
    )
    text = text_of(page_of(path, plan))
    assert message in text
    assert re.search(r"steps with pretraining\s+not known\s+wall time", text)


def test_an_agents_weights_cost_its_steps_and_its_pretraining(tmp_path: Path) -> None:
    first = pretrained(tmp_path / "pretraining")
    with RunDirectory.create(tmp_path / "agent", {}) as agent:
        agent.write_summary({"steps": 2000, "wall_seconds": 50.0})
    file = agent.checkpoints_dir / "000000001000" / "policy.safetensors"
    origin = {
        "weights": str(agent.path),
        "file": str(file),
        "about": {"algorithm": "PPO", "step": 1000},
        "origin": first,
    }
    with RunDirectory.create(tmp_path / "run", {}) as run:
        write_json_atomic(run.path / "weights.json", {"origin": origin})
    before = pretraining_of(run.path)
    assert before is not None
    assert (before.steps, before.seconds) == (1000 + 1100, 25.0 + 600.0)
    assert pretraining_of(agent.path) is None


def test_the_cost_of_a_player_includes_its_first_weights(tmp_path: Path) -> None:
    first = pretrained(tmp_path / "first")
    with RunDirectory.create(tmp_path / "player", {}) as player:
        player.write_summary({"steps": 2000, "wall_seconds": 50.0})
        write_json_atomic(player.path / "weights.json", {"origin": first})
    second = pretrained(tmp_path / "second", players=[str(player.path)])
    with RunDirectory.create(tmp_path / "run", {}) as run:
        write_json_atomic(run.path / "weights.json", {"origin": second})
    before = pretraining_of(run.path)
    assert before is not None
    assert (before.steps, before.seconds) == (1100 + 2000 + 1100, 600.0 + 50.0 + 600.0)
