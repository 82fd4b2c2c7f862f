"""Training from the command line: finished, killed, stopped, resumed, extended, repeated."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.script_runs import (
    GAMES,
    ROLLOUT,
    TINY,
    TWO_GAMES,
    command,
    environment,
    metrics,
    policy,
    read,
    run_script,
    steps_of,
)

from agents import load_agent
from agents.config import DQNConfig, PPOConfig, PQNConfig, TrainConfig
from agents.train import training
from envs.errors import UserError
from rlcnn.accelerate.compilation import can_compile
from rlcnn.encoders import list_encoders
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.stopping import TrainingStopped

Script = Callable[..., None]


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if not key.startswith("time/")} for row in rows]


def learned(run: Path) -> list[int]:
    """Steps of the rows with metrics of an update."""
    return [row["step"] for row in metrics(run) if "time/fps" in row]


# -- to the end ------------------------------------------------------------------------------------


def test_a_run_leaves_all_its_files(finished: tuple[Path, str]) -> None:
    run, said = finished
    summary = read(run / "summary.json")
    assert summary["steps"] == 3 * ROLLOUT
    assert summary["wall_seconds"] > 0
    assert summary["steps_per_second"] > 0
    assert summary["eval"]["episodes"] == len(summary["eval"]["returns"]) == 1
    assert summary["eval"]["protocol"]["name"] == "classic"

    config = read(run / "config.json")
    assert config["config"]["device"] in ("cpu", "cuda")
    assert config["config"]["precision"] == "fp32"
    assert config["config"]["compile"] in ("on", "off")
    assert {"command", "provenance"} <= set(config)

    rows = metrics(run)
    assert learned(run) == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
    assert [row["step"] for row in rows if "train/loss" in row] == learned(run)
    assert rows[-2]["eval/mean_return"] == summary["eval"]["mean_return"]
    assert rows[-1]["video/game"] == summary["video"]
    assert steps_of(run) == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
    film = run / summary["video"]
    assert film.read_bytes()[4:8] == b"ftyp"
    assert any((run / "tb").iterdir())
    for message in (str(run), str(film), str(run / "checkpoints" / f"{3 * ROLLOUT:012d}")):
        assert message in said
    assert load_agent(run).num_timesteps == 3 * ROLLOUT


def test_an_offline_run_holds_figures_and_the_film_for_wandb(finished: tuple[Path, str]) -> None:
    run, said = finished
    assert "wandb:" not in said
    (directory,) = (run / "wandb").glob("offline-run-*")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(directory)]
    answer = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout
    entries = [json.loads(line) for line in answer.splitlines()]
    rows = [entry["history"]["item"] for entry in entries if entry["type"] == "history"]
    kept = metrics(run)
    assert [row["step"] for row in rows] == [row["step"] for row in kept]
    assert rows[-2]["eval/mean_return"] == kept[-2]["eval/mean_return"]
    film = directory / "files" / rows[-1]["video/game.path"]
    assert film.read_bytes() == (run / kept[-1]["video/game"]).read_bytes()


def test_help_explains_every_option_with_its_default(
    train_agent: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        train_agent("--preset", "zoo", "--help")
    assert end.value.code == 0
    output = capsys.readouterr().out
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    for section in (PPOConfig, DQNConfig, PQNConfig):
        algo = section.__name__.removesuffix("Config").lower()
        names.remove(algo)
        names += [f"{algo}.{field.name}" for field in dataclasses.fields(section)]
    for name in names:
        option = re.escape("--" + name.replace("_", "-"))
        explained = re.search(rf"^\W+{option}[ ,](.*?)\(default:", output, re.DOTALL | re.MULTILINE)
        assert explained, name
        assert len(re.findall(r"[A-Za-z]{2,}", explained[1])) >= 3, name
    assert re.search(r"--total-steps INT[^-]*\(default: 10000000\)", output), "those of the preset"
    assert f"--encoder {{{','.join(list_encoders())},NETWORK[:NODE]}}" in output


def test_the_command_line_overrides_a_configuration(
    train_agent: Script, finished: tuple[Path, str], tmp_path: Path
) -> None:
    origin = finished[0] / "config.json"
    train_agent(
        *("--config", origin, "--seed=5", "--total-steps", ROLLOUT, "--track", "disabled"),
        *("--eval-episodes", "0", "--run-dir", tmp_path / "new"),
    )
    assert read(tmp_path / "new" / "summary.json")["eval"] is None
    old, new = read(origin)["config"], read(tmp_path / "new" / "config.json")["config"]
    assert {name: new[name] for name in old if old[name] != new[name]} == {
        "seed": 5,
        "total_steps": ROLLOUT,
        "track": "disabled",
        "eval_episodes": 0,
    }


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="there is no C++ compiler")
def test_a_compiled_run_is_repeated_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / "one", tmp_path / "other"]
    for run in runs:
        # Each process compiles: nothing is taken over from the first.
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / f"{run.name}-compiled"))
        options = ("--compile", "on", "--eval-episodes", "0", "--total-steps", 4 * ROLLOUT)
        done = run_script("train_agent", *TINY, *options, "--run-dir", run)
        assert done.returncode == 0, done.stderr
        assert "compiled in" in done.stderr
    assert policy(runs[0]) == policy(runs[1])
    rows = [without_clock(metrics(run)) for run in runs]
    assert rows[0] == rows[1]


# -- killed and stopped ----------------------------------------------------------------------------


def kill_in_training(run: Path) -> Path:
    """A run killed without warning after its newest checkpoint."""
    endless = [*TINY, *TWO_GAMES, "--total-steps", "1000000", "--checkpoint-every", "512"]
    with subprocess.Popen(
        command("train_agent", *endless, "--run-dir", run),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while True:
                assert process.poll() is None
                time.sleep(0.02)
                if not (run / "checkpoints").is_dir() or not steps_of(run):
                    continue
                if metrics(run)[-1]["step"] >= steps_of(run)[-1] + 2 * ROLLOUT:
                    break
        finally:
            process.send_signal(signal.SIGKILL)
    assert learned(run)[-1] > steps_of(run)[-1]
    assert not (run / "summary.json").exists()
    return run


@pytest.mark.slow
def test_kill_9_and_resume_neither_doubles_nor_loses_a_row(
    train_agent: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = kill_in_training(tmp_path / "run")
    before, checkpoint = metrics(run), steps_of(run)[-1]
    end = checkpoint + 4 * ROLLOUT
    train_agent("--resume", run, "--total-steps", end)
    assert f"resuming from step {checkpoint:,}" in capsys.readouterr().err
    assert learned(run) == list(range(ROLLOUT, end + 1, ROLLOUT))
    # A rollout's row, and one of the update that learned from it.
    kept = 2 * checkpoint // ROLLOUT
    assert metrics(run)[:kept] == before[:kept]
    assert read(run / "summary.json")["steps"] == end == steps_of(run)[-1]
    assert read(run / "config.json")["config"]["total_steps"] == end


def test_ctrl_c_stops_with_a_checkpoint_and_says_how_to_resume(tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = [*TINY, *TWO_GAMES, "--total-steps", "1000000", "--checkpoint-every", "0"]
    with subprocess.Popen(
        command("train_agent", *endless, "--run-dir", run),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (run / "metrics.jsonl").exists() or len(metrics(run)) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    (step,) = steps_of(run)
    assert said.splitlines()[-1] == f"stopped at step {step:,}; go on with --resume {run}"
    assert "Traceback" not in said
    assert learned(run) == list(range(ROLLOUT, step + 1, ROLLOUT))
    assert RunDirectory.open(run).latest_whole()[1] == []


@pytest.mark.slow
def test_a_signal_while_a_checkpoint_is_cut_stops_after_it(
    train_agent: Script, finished_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = training.Training.checkpoint
    for number, rollouts in ((signal.SIGINT, 4), (signal.SIGTERM, 5)):
        # Once: a second signal is not waited for.
        pending = [number]

        def signalled(self: training.Training, pending: list[signal.Signals] = pending) -> None:
            if pending:
                os.kill(os.getpid(), pending.pop())
            cut(self)

        with monkeypatch.context() as patch:
            patch.setattr(training.Training, "checkpoint", signalled)
            with pytest.raises(TrainingStopped, match="go on with --resume"):
                train_agent("--resume", finished_copy, "--total-steps", 1000, "--track", "disabled")
        assert steps_of(finished_copy)[-1] == rollouts * ROLLOUT
    # The summary of the shorter run does not pass for that of the longer.
    train_agent("--resume", finished_copy, "--total-steps", 6 * ROLLOUT)
    assert read(finished_copy / "summary.json")["steps"] == 6 * ROLLOUT
    assert learned(finished_copy) == list(range(ROLLOUT, 6 * ROLLOUT + 1, ROLLOUT))


# -- finished runs ---------------------------------------------------------------------------------


def test_a_finished_run_is_done(train_agent: Script, finished: tuple[Path, str]) -> None:
    before = metrics(finished[0])
    with pytest.raises(UserError, match=r"is done: it took its 384 steps.*--total-steps 768$"):
        train_agent("--resume", finished[0])
    with pytest.raises(UserError, match="is done"):
        train_agent("--resume", finished[0], "--total-steps", ROLLOUT)
    assert metrics(finished[0]) == before


def test_a_finished_run_is_extended(train_agent: Script, finished_copy: Path) -> None:
    before = metrics(finished_copy)
    train_agent("--resume", finished_copy, "--total-steps", 6 * ROLLOUT, "--eval-episodes", "2")
    after = metrics(finished_copy)
    assert after[: len(before)] == before
    assert learned(finished_copy) == list(range(ROLLOUT, 6 * ROLLOUT + 1, ROLLOUT))
    summary = read(finished_copy / "summary.json")
    assert summary["steps"] == 6 * ROLLOUT
    assert summary["eval"]["episodes"] == 2
    # The schedule was stretched over the new length: up from nothing, and down again.
    rates = [row["train/learning_rate"] for row in after if "train/learning_rate" in row]
    first = read(finished_copy / "config.json")["config"]["ppo"]["learning_rate"]
    assert rates == pytest.approx([first * left for left in (2 / 3, 1 / 3, 0, 1 / 3, 1 / 6, 0)])
    attempts = list((finished_copy / "wandb").glob("offline-run-*"))
    assert len(attempts) == 2
    assert len({path.name.rpartition("-")[2] for path in attempts}) == 1


def test_a_configuration_repeats_a_run_and_what_was_not_evaluated_only_needs_evaluating(
    train_agent: Script,
    finished: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agents.train.training.evaluate_agent", interrupt)
    run = tmp_path / "run"
    config = ("--config", finished[0] / "config.json", "--track", "disabled")
    with pytest.raises(KeyboardInterrupt):
        train_agent(*config, "--run-dir", run)
    assert f"--resume {run}" in capsys.readouterr().err.replace("\n", "")
    assert steps_of(run)[-1] == 3 * ROLLOUT
    trained = policy(run)
    monkeypatch.undo()
    train_agent("--resume", run)
    assert policy(run) == trained == policy(finished[0])
    assert read(run / "summary.json")["eval"] == read(finished[0] / "summary.json")["eval"]
    assert without_clock(metrics(run)) == without_clock(metrics(finished[0]))


@pytest.mark.slow
def test_neither_wandb_nor_tensorboard_is_needed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    hidden = "import sys; sys.modules.update(wandb=None, tensorboard=None)"
    script, *arguments = command(
        *("train_agent", *TINY, "--env", "support.games:Signals-v0", "--eval-episodes", "0"),
        *("--total-steps", ROLLOUT, "--run-dir", run),
    )[1:]
    start = f"import runpy; sys.argv[0] = {script!r}; runpy.run_path({script!r}, None, '__main__')"
    imports = "import agents.benchmark.gpu_suite, agents.benchmark.suite"
    done = subprocess.run(
        [sys.executable, "-c", f"{hidden}; {imports}; {start}", *arguments],
        env=environment(),
        cwd=GAMES,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("TensorBoard is left out: ") == 1
    assert steps_of(run) == [ROLLOUT]
    assert metrics(run)


# -- DQN -------------------------------------------------------------------------------------------


def test_dqn_trains_and_resumes_with_its_replay(train_agent: Script, tmp_path: Path) -> None:
    run = tmp_path / "run"
    dqn = ("--dqn.buffer-size", "400", "--dqn.learning-starts", "64", "--dqn.batch-size", "8")
    train_agent(
        *("--algo", "dqn", "--env", "ALE/Kangaroo-v5", "--num-envs", "2", "--num-threads", "1"),
        *("--obs-size", "44"),
        *("--total-steps", "200", "--checkpoint-every", "100", "--eval-episodes", "0", *dqn),
        *("--track", "disabled", "--run-dir", run),
    )
    held = [path.parent.name for path in run.glob("checkpoints/*/replay.safetensors")]
    assert held == [f"{200:012d}"], "only the newest checkpoint holds the replay"
    first = policy(run)
    train_agent("--resume", run, "--total-steps", "300", "--no-save-replay")
    assert policy(run) != first
    assert read(run / "summary.json")["steps"] == 300
    assert not list(run.glob(f"checkpoints/{300:012d}/replay.safetensors"))
