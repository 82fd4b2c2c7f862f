"""What a pretraining leaves for Weights & Biases, read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.run_files import rows_of
from support.tracked_runs import history, of_type, summary, wandb_directories, wandb_records

from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.pretraining import pretrain

pytest.importorskip("wandb")


def test_wandb_has_the_options_accuracy_plots_and_weights(
    pretraining_config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    config = replace(pretraining_config, epochs=2, track="offline", log_model=True)
    run = pretrain(config, tmp_path / "run")
    (directory,) = wandb_directories(run)
    entries = wandb_records(directory)

    (started,) = of_type(entries, "run")
    options = started["config"]["update"]
    assert (options["encoder"], options["epochs"]) == ("lenet", 2)
    assert options["augment"]["flip"] is True
    assert options["provenance"]["data"]["train"]["images"] > 0
    assert started["job_type"] == "pretrain"
    assert started["tags"][1:] == ["lenet", "frames"]

    rows = rows_of(run)
    found = summary(entries)
    accuracies = [row["test/top1"] for row in rows]
    assert found["best/test/top1"] == max(accuracies)
    assert found["last/test/top1"] == accuracies[-1]
    assert (found["steps"], found["epochs"]) == (10, 2)
    assert all(row["train/grad_norm"] > 0 and row["train/param_norm"] > 0 for row in rows)

    shown = [row for row in history(entries) if "plots/confusion.path" in row]
    assert len(shown) == 1
    for name in ("confusion", "worst", "top5"):
        kept = directory / "files" / shown[0][f"plots/{name}.path"]
        assert kept.read_bytes() == (run / "plots" / f"{name}.png").read_bytes()

    (model,) = of_type(entries, "artifact")
    names = {entry["path"] for entry in model["manifest"]["contents"]}
    assert names == {"best.safetensors", "last.safetensors", "summary.json", "config.json"}
