"""Evaluating the agent of a run in any state from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.script_runs import ROLLOUT, TINY, load_script, read

from agents.evaluate.assessment import Assessment
from agents.evaluate.evaluation import Evaluation
from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory

Script = Callable[..., None]


@pytest.fixture
def evaluate(
    evaluate_agent: Script, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """The script's standard output with ``--json``."""

    def evaluate(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        evaluate_agent(*arguments, "--json")
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return evaluate


def test_the_figures_are_those_of_the_runs_own_evaluation(
    evaluate_agent: Script,
    finished: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = finished[0]
    evaluate_agent(run, "--json", tmp_path / "result.json")
    output, own = read(tmp_path / "result.json"), read(run / "summary.json")["eval"]
    assert output["run"] == str(run)
    assert output["step"] == 3 * ROLLOUT
    assert output["eval"] == own
    assert output["videos"] == []
    assert output["encoder_origin"] is None
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"loading the agent of {run}",
        "evaluating the agent of step 384 over 1 game",
    ]
    lines = printed.out.splitlines()
    assert lines[0] == f"run:         {run}, step 384"
    mean = f"mean return: {own['mean_return']:.2f} (std 0.00, 1 game, classic protocol)"
    assert lines[1] == mean


def test_the_protocol_of_atari_is_not_named_for_other_games() -> None:
    # Evaluations of all environments have the name of the option's value.
    result = Evaluation([1.0, 3.0], [2, 2], 0, {"name": "classic", "max_episode_steps": 27_000})
    _, mean, _ = load_script("evaluate_agent").describe(Assessment(Path("run"), 5, result, []))
    assert mean == "mean return: 2.00 (std 1.41, 2 games)"


def test_the_source_of_the_encoder_is_printed(
    train_agent: Script,
    evaluate_agent: Script,
    finished: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    options = ("--weights", finished[0], "--mode", "frozen", "--eval-episodes", 0)
    train_agent(*TINY, *options, "--total-steps", ROLLOUT, "--run-dir", run)
    capsys.readouterr()
    evaluate_agent(run, "--episodes", 1, "--json", tmp_path / "result.json")
    output = capsys.readouterr().out
    began = f'encoder:     began with "{finished[0]}" (SHA-256 '
    assert began in output
    assert f"algorithm ppo, step {3 * ROLLOUT}, env ALE/Breakout-v5, mode train)" in output
    origin = read(tmp_path / "result.json")["encoder_origin"]
    assert origin["weights"] == str(finished[0])


def test_a_run_in_progress_is_read_and_not_changed(
    evaluate: Callable[..., dict[str, Any]], finished: tuple[Path, str], finished_copy: Path
) -> None:
    (finished_copy / "summary.json").unlink()
    with RunDirectory.open(finished_copy, write=True):
        before = {path: path.read_bytes() for path in finished_copy.rglob("*") if path.is_file()}
        result = evaluate(finished_copy)
        after = {path: path.read_bytes() for path in finished_copy.rglob("*") if path.is_file()}
    assert result["eval"] == read(finished[0] / "summary.json")["eval"]
    assert after == before


def test_games_seed_checkpoint_and_determinism_can_be_chosen(
    evaluate: Callable[..., dict[str, Any]], finished: tuple[Path, str]
) -> None:
    run = finished[0]
    own = read(run / "summary.json")["eval"]
    other = evaluate(run, "--episodes", 2, "--seed", 5)["eval"]
    assert other["episodes"] == 2
    assert other["protocol"] == {**own["protocol"], "seed": 5, "environments": 2}
    assert other["lengths"] == evaluate(run, "--episodes", 2, "--seed", 5)["eval"]["lengths"]
    assert evaluate(run, "--checkpoint", ROLLOUT, "--stochastic")["step"] == ROLLOUT
    path = run / "checkpoints" / f"{ROLLOUT:012d}"
    assert evaluate(run, "--checkpoint", path)["step"] == ROLLOUT


def test_games_are_filmed_into_the_run(evaluate_agent: Script, finished_copy: Path) -> None:
    result = finished_copy / "result.json"
    evaluate_agent(finished_copy, "--episodes", 0, "--video", 2, "--json", result)
    written = read(result)
    assert written["eval"] is None
    films = [Path(film["path"]) for film in written["videos"]]
    assert len(set(films)) == 2
    assert all(film.parent == finished_copy / "videos" for film in films)
    assert films[0].read_bytes() != films[1].read_bytes()
    # The first game is the one that the run itself filmed last.
    own = max(set(finished_copy.glob("videos/*.mp4")) - set(films))
    assert films[0].read_bytes() == own.read_bytes()


def test_an_overlay_makes_another_film_of_the_same_game(
    evaluate_agent: Script, finished_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = finished_copy / "result.json"
    films = []
    for overlay in ((), ("--video-overlay",)):
        evaluate_agent(finished_copy, "--episodes", 0, "--video", 1, *overlay, "--json", result)
        films += read(result)["videos"]
    plain, overlaid = films
    assert overlaid["path"].endswith("-overlay-seed0-0.mp4")
    assert (overlaid["return"], overlaid["length"]) == (plain["return"], plain["length"])
    assert Path(overlaid["path"]).stat().st_size > Path(plain["path"]).stat().st_size


def test_another_protocol_keeps_the_actions_that_were_learned(
    train_agent: Script, evaluate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    sticky = (*TINY, "--protocol", "sticky", "--total-steps", ROLLOUT, "--run-dir", run)
    train_agent(*sticky)
    own = read(run / "summary.json")["eval"]["protocol"]
    assert own["full_action_space"] is True
    assert own["repeat_action_probability"] == 0.25
    classic = evaluate(run, "--protocol", "classic", "--deterministic", "--seed", 1)["eval"]
    assert classic["protocol"]["name"] == "classic"
    assert classic["protocol"]["repeat_action_probability"] == 0
    assert classic["protocol"]["deterministic"] is True
    # Breakout's own four actions would not fit the agent.
    assert classic["protocol"]["full_action_space"] is True


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "RUN_DIR"),
        (("",), '^RUN_DIR takes a value: "" is empty$'),
        (("{run}", "--json", ""), '^--json takes a value: "" is empty$'),
        (("{run}", "--episodes", "1.5"), '"1.5" is neither a whole number nor None'),
        (("{run}", "--deterministic", "True"), "--deterministic takes no value"),
        (("{run}", "--episodes", "-1"), "--episodes -1 must be at least 0"),
        (("{run}", "--episodes", "0"), "nothing to do"),
        (("{run}", "--video", "-1"), "--video -1 must be at least 0"),
        (("{run}", "--video-overlay"), "--video-overlay draws into films: give --video 1 too"),
        (("{run}", "--seed", "-1"), "--seed -1 must be at least 0"),
        (("{run}", "--protocol", "stiky"), '--protocol "stiky" is unknown.* Did you mean "sticky"'),
        (("{run}", "--deterministic", "--stochastic"), "exclude each other: give one"),
        (("{run}", "--checkpoint", "17"), "no checkpoint 17: it has those of step 128, 256, 384$"),
        (("{run}", "--device", "gpu"), 'unknown device "gpu"'),
        (("{run}", "--determinstic"), 'Did you mean "--deterministic"'),
        (("{run}/nowhere",), "nowhere does not exist"),
        (("{run}/videos",), "holds no config.json, so it is not a run"),
        (("{run}", "--json", "{run}/no/file.json"), "no such directory; mkdir -p"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: tuple[str, ...], message: str, evaluate_agent: Script, finished: tuple[Path, str]
) -> None:
    with pytest.raises(UserError, match=message) as error:
        evaluate_agent(*(part.replace("{run}", str(finished[0])) for part in arguments))
    assert "\n" not in str(error.value)


def test_a_run_without_a_checkpoint_cannot_be_evaluated_yet(
    evaluate_agent: Script, finished_copy: Path
) -> None:
    for file in finished_copy.glob("checkpoints/*/policy.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"no whole checkpoint: .*384: policy.safetensors has"):
        evaluate_agent(finished_copy)
    with pytest.raises(UserError, match=r"128 is damaged: policy.safetensors has"):
        evaluate_agent(finished_copy, "--checkpoint", "128")
    shutil.rmtree(finished_copy / "checkpoints")
    with pytest.raises(UserError, match="has no whole checkpoint yet"):
        evaluate_agent(finished_copy)
