"""What a release from before the packages moved has written: it is read and gone on with.

``tests/fixtures/before_move`` says how its files were made.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from support.script_runs import ROOT, load_script

import agents

WRITTEN = ROOT / "tests" / "fixtures" / "before_move"
ALGORITHMS = pytest.mark.parametrize("algo", ["ppo", "dqn"])


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all files, in which the test runs; its games can be imported."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "support" / "behaviour")
    copy = shutil.copytree(WRITTEN, tmp_path / "written")
    monkeypatch.chdir(copy)
    return copy


def run_script(name: str, *arguments: object) -> None:
    load_script(name).main([str(argument) for argument in arguments])


def rows(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def policy(run: str, step: int) -> dict[str, Any]:
    return load_file(Path(run, "checkpoints", f"{step:012d}", "policy.safetensors"))


@ALGORITHMS
def test_a_run_is_resumed(algo: str) -> None:
    before = rows(algo)
    run_script("train_agent", "--resume", algo, "--total-steps", 96)
    assert rows(algo)[: len(before)] == before
    assert json.loads(Path(algo, "summary.json").read_text())["steps"] == 96
    learned = policy(algo, 96)
    assert any((tensor != learned[name]).any() for name, tensor in policy(algo, 64).items())


@ALGORITHMS
def test_the_agent_of_a_run_is_loaded(algo: str) -> None:
    model = agents.load_agent(algo, device="cpu")
    assert isinstance(model, getattr(agents, algo.upper()))
    assert model.num_timesteps == 64
    loaded = model.policy.state_dict()
    for name, tensor in policy(algo, 64).items():
        assert (tensor == loaded[name].numpy()).all(), name


@ALGORITHMS
def test_a_run_is_evaluated(algo: str) -> None:
    run_script("evaluate_agent", algo, "--json", "result.json")
    result = json.loads(Path("result.json").read_text())
    summary = json.loads(Path(algo, "summary.json").read_text())
    assert result["step"] == 64
    for key in ("episodes", "protocol"):
        assert result["eval"][key] == summary["eval"][key]


@pytest.mark.slow
def test_a_study_is_reported_anew() -> None:
    def results() -> list[dict[str, str]]:
        with Path("study", "results.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    before = results()
    Path("study", "results.csv").unlink()
    run_script("compare_encoders", "--resume", "study", "--report-only")
    assert results() == before
    assert "frozen-random" in Path("study", "report.html").read_text()


def test_a_pretraining_is_resumed_and_evaluated() -> None:
    before = rows("pretraining")
    run_script("pretrain_encoder", "--resume", "pretraining", "--epochs", 3)
    assert rows("pretraining")[: len(before)] == before
    assert [row["epoch"] for row in rows("pretraining")] == [1, 2, 3]
    run_script("evaluate_classifier", "pretraining", "--json", "result.json", "--device", "cpu")
    assert "provenance" in json.loads(Path("result.json").read_text())


@pytest.mark.parametrize("weights, stack", [("encoder.safetensors", 2), ("pretraining", 1)])
def test_an_agent_begins_with_the_weights(weights: str, stack: int) -> None:
    run_script(
        *("train_agent", "--config", "ppo/config.json", "--run-dir", "new", "--mode", "frozen"),
        *("--weights", weights, "--frame-stack", stack, "--total-steps", 16),
        *("--eval-episodes", 0),
    )
    file = Path(weights)
    wanted = load_file(file / "best.safetensors" if file.is_dir() else file)
    prefix = "features_extractor.encoder."
    found = policy("new", 16)
    for name, tensor in wanted.items():
        if not name.startswith("head."):
            assert (found[prefix + name] == tensor).all(), name
