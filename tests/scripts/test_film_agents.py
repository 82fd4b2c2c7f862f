"""Films of several runs from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.script_runs import ROLLOUT, TINY

from envs.errors import UserError

Script = Callable[..., None]


@pytest.mark.parametrize("overlay", [(), ("--video-overlay",)])
def test_an_agent_beside_its_younger_self(
    film_agents: Script,
    finished: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overlay: tuple[str, ...],
) -> None:
    run = finished[0]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    out = tmp_path / "films"
    options = ("--out", out, "--track", "disabled", "--max-steps", 20, "--seed", 3)
    film_agents(f"{run}@{ROLLOUT}", run, *options, *overlay)
    path = out / f"Breakout-v5{'-overlay' * len(overlay)}-seed3.mp4"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"video: {path} (")
    assert lines[0].endswith(" frames at 60 per second)")
    assert [line.split(": return")[0].strip() for line in lines[1:]] == [
        f"{run.name}@128",
        run.name,
    ]
    assert list(out.iterdir()) == [path]
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_run_of_another_game_is_refused(
    film_agents: Script, train_agent: Script, finished: tuple[Path, str], tmp_path: Path
) -> None:
    other = tmp_path / "pong"
    options = ("--eval-episodes", 0, "--video-every", 0, "--total-steps", ROLLOUT)
    train_agent(*TINY, *options, "--env", "ALE/Pong-v5", "--run-dir", other)
    with pytest.raises(UserError, match=r'plays "ALE/Pong-v5", but .* plays "ALE/Breakout-v5"'):
        film_agents(finished[0], other, "--out", tmp_path / "films")
    assert not (tmp_path / "films").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "side by side needs at least two runs"),
        (("{run}",), "side by side needs at least two runs"),
        (("{run}", "{run}/videos"), "holds no config.json, so it is not a run"),
        (("{run}", "{run}@7"), "has no checkpoint 7"),
        (("{run}", "{run}@128", "--games", "0"), "--games 0 must be at least 1"),
        (("{run}", "{run}@128", "--max-steps", "0"), "--max-steps 0 must be at least 1"),
        (("{run}", "{run}@128", "--seed", "2147483647", "--games", "2"), "must end at most at"),
        (("{run}", "{run}@128", "--protocol", "clasic"), 'Did you mean "classic"'),
        (("{run}", "{run}@128", "--out", "{run}/config.json"), "cannot write the film"),
    ],
)
def test_bad_input_is_one_line(
    film_agents: Script, finished: tuple[Path, str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        film_agents(*(argument.format(run=finished[0]) for argument in arguments))
    assert "\n" not in str(refusal.value)
