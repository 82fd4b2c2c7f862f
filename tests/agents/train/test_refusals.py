"""Runs that cannot go on, or cannot begin: losses, disks and memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.agent_runs import BOTH, DQN, DQN_FIRST, PPO, copied, quiet
from support.run_files import checkpoint_steps

from agents.train import builder, training
from agents.train.training import resume, train
from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory

FileLimit = Callable[[int], AbstractContextManager[None]]


def finite(checkpoint: Path) -> bool:
    return all(t.isfinite().all() for t in load_file(checkpoint / "policy.safetensors").values())


@BOTH
def test_a_loss_that_is_not_finite_stops_before_anything_is_saved(
    algo: str, stopped: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(stopped[algo], tmp_path / "run")
    document = json.loads((run_dir / "config.json").read_text())
    document["config"][algo]["learning_rate"] = 1e38
    document["config"][algo]["learning_rate_schedule"] = "constant"
    (run_dir / "config.json").write_text(json.dumps(document))
    before = checkpoint_steps(run_dir)
    with pytest.raises(UserError, match=r"\Athe loss became (nan|-?inf) by step \d+: [^\n]*\Z"):
        resume(run_dir, console=quiet())
    assert set(before) <= {*checkpoint_steps(run_dir)}
    assert all(map(finite, RunDirectory.open(run_dir).checkpoints()))


@DQN_FIRST
def test_a_full_disk_loses_nothing_that_was_saved(
    algo: str,
    stopped: dict[str, Path],
    tmp_path: Path,
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    run_dir = copied(stopped[algo], tmp_path / "run")
    before = checkpoint_steps(run_dir)
    newest = RunDirectory.open(run_dir).checkpoints()[-1]
    limit = max(file.stat().st_size for file in newest.iterdir()) // 2
    with (
        largest_file(limit),
        pytest.raises(UserError, match=r"\Acannot write [^\n]* file size\Z"),
    ):
        resume(run_dir, console=quiet())
    run = RunDirectory.open(run_dir)
    assert checkpoint_steps(run_dir) == before
    assert run.latest_whole() == (newest, [])
    assert [path.name for path in (run_dir / "checkpoints").glob(".*")] == []
    resume(run_dir, {"total_steps": 144}, console=quiet())
    assert RunDirectory.open(run_dir).summary() is not None


@BOTH
def test_too_small_a_disk_is_refused_before_the_start(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    config = {"ppo": PPO, "dqn": DQN}[algo]
    said = r"\Acheckpoints in [^\n]* may take [^\n]*, but [^\n]* has 0\.0 MB [^\n]*\Z"
    with pytest.raises(UserError, match=said) as error:
        train(config, tmp_path / "deep" / "run", console=quiet())
    assert ("--no-save-replay" in str(error.value)) == (algo == "dqn")
    assert not (tmp_path / "deep").exists()


def test_what_a_run_holds_already_counts_as_room_for_it(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = copied(whole["dqn"], tmp_path / "run")
    held = sum(file.stat().st_size for file in run_dir.glob("checkpoints/*/*"))
    usage = shutil.disk_usage(tmp_path)
    config = replace(DQN, keep_checkpoints=1)
    with training.use_threads(1):
        venv = builder.make_train_env(config)
        model = builder.build_agent(config, venv)
        replay = model.setup_replay().nbytes  # type: ignore[union-attr]
        parameters = sum(p.numel() * 4 for p in model.policy.parameters())
        needed = 2 * replay + 3 * 2 * parameters
        for free, fits in ((needed - held, True), (needed - held - 1, False)):
            monkeypatch.setattr(
                builder.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free)
            )
            if fits:
                builder.check_resources(model, config, run_dir)
            else:
                with pytest.raises(UserError, match="checkpoints in"):
                    builder.check_resources(model, config, run_dir)
        venv.close()


def test_too_small_a_memory_is_refused_before_the_start(tmp_path: Path) -> None:
    config = replace(DQN, dqn=replace(DQN.dqn, buffer_size=2 * 10**9))
    with pytest.raises(UserError, match=r"\Aa replay of 2,000,000,000 transitions needs [^\n]*\Z"):
        train(config, tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()
