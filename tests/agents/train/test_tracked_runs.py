"""What a training leaves for Weights & Biases and TensorBoard, read back by their own readers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.agent_runs import quiet
from support.run_files import rows_of
from support.tiny_agents import TINY, as_dqn
from support.tracked_runs import history, of_type, summary, wandb_directories, wandb_records

from agents.train.card import card_of
from agents.train.training import resume, train
from rlcnn.runs.provenance import provenance

pytest.importorskip("wandb")

CONFIG = replace(
    TINY,
    env="support.games:Signals-v0",
    total_steps=32,
    eval_every=16,
    eval_episodes=1,
    video_every=None,
    track="offline",
    log_model=True,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was extended."""
    path = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(path / "staged"))
        train(CONFIG, path / "run", console=quiet(), command=["train_agent.py", "--seed", "0"])
        resume(path / "run", {"total_steps": 48}, console=quiet())
    return path / "run"


@pytest.fixture(scope="module")
def attempts(run: Path) -> list[list[dict[str, Any]]]:
    return [wandb_records(directory) for directory in wandb_directories(run)]


def test_wandb_finds_the_run_by_options_tags_group_and_commit(
    attempts: list[list[dict[str, Any]]],
) -> None:
    (first,), (second,) = (of_type(part, "run") for part in attempts)
    config = first["config"]["update"]
    assert (config["env"], config["algo"], config["encoder"]) == (CONFIG.env, "ppo", "lenet")
    assert config["ppo"]["learning_rate"] == CONFIG.ppo.learning_rate
    assert "dqn" not in config
    assert config["provenance"]["attempt"] == 1
    assert config["provenance"]["command"] == ["train_agent.py", "--seed", "0"]
    assert config["provenance"]["versions"]["torch"]
    assert second["config"]["update"]["total_steps"] == 48
    assert second["config"]["update"]["provenance"]["attempt"] == 2
    assert first["tags"] == ["ppo", CONFIG.env, "lenet", "train"]
    assert first["run_group"] == f"{CONFIG.env}-ppo-lenet,features_dim=16-train"
    assert first["job_type"] == "train"
    if (commit := provenance()["git_commit"]) is not None:
        assert first["git"]["commit"] == commit


def test_wandb_has_the_best_and_the_last_return(
    run: Path, attempts: list[list[dict[str, Any]]]
) -> None:
    found = summary(attempts[-1])
    for name in ("rollout/ep_rew_mean", "eval/mean_return"):
        values = [row[name] for row in rows_of(run) if name in row]
        assert found[f"best/{name}"] == max(values)
        assert found[f"last/{name}"] == values[-1]
    assert found["steps"] == 48
    assert found["steps_per_second"] > 0


def test_wandb_has_the_norms_and_the_films(attempts: list[list[dict[str, Any]]]) -> None:
    rows = [row for part in attempts for row in history(part)]
    norms = [row for row in rows if "train/loss" in row]
    assert len(norms) == 3
    assert all(row["train/grad_norm"] > 0 and row["train/param_norm"] > 0 for row in norms)
    films = [row for row in rows if "video/game.path" in row]
    assert [row["step"] for row in films] == [0, 16, 32, 48]
    assert films[0]["video/game.caption"].startswith("step 0 | ")
    assert all("left to right" not in row["video/game.caption"] for row in films)


def test_wandb_has_the_agent_at_the_end_of_each_attempt(
    attempts: list[list[dict[str, Any]]],
) -> None:
    for part, steps in zip(attempts, (32, 48), strict=True):
        (model,) = of_type(part, "artifact")
        assert model["type"] == "model"
        assert model["name"] == f"model-{of_type(part, 'run')[0]['run_id']}"
        names = {entry["path"] for entry in model["manifest"]["contents"]}
        assert names == {"policy.safetensors", "state.json", "summary.json", "config.json"}
        about = json.loads(model["metadata"])
        assert (about["steps"], about["options"]["algo"]) == (steps, "ppo")


def test_tensorboard_has_hyperparameters_and_text(run: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plugin_data = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    board = events.EventAccumulator(str(run / "tb")).Reload()
    (content,) = board.PluginTagToContent("hparams").values()
    session = plugin_data.HParamsPluginData.FromString(content).session_start_info
    assert session.hparams["ppo.learning_rate"].number_value == CONFIG.ppo.learning_rate
    assert session.hparams["algo"].string_value == "ppo"
    assert session.hparams["save_replay"].bool_value is True
    text = {
        tag: board.Tensors(tag)[-1].tensor_proto.string_val[0]
        for tag in ("configuration", "command")
    }
    assert b'"total_steps": 48' in text["configuration"]
    assert text["command"]
    assert set(board.PluginTagToContent("text")) == {"configuration", "command"}


def test_seeds_of_one_setting_are_one_group() -> None:
    cards = [card_of(replace(CONFIG, seed=seed)) for seed in (0, 1)]
    assert cards[0].group == cards[1].group
    others = [
        as_dqn(CONFIG),
        replace(CONFIG, env="ALE/Pong-v5"),
        replace(CONFIG, encoder_options={"features_dim": 32}),
        replace(CONFIG, mode="frozen"),
        replace(CONFIG, weights="imagenet"),
    ]
    assert len({card_of(config).group for config in (CONFIG, *others)}) == 1 + len(others)


def test_long_names_become_tags_and_groups_that_wandb_takes() -> None:
    card = card_of(replace(CONFIG, weights="w" * 200)).with_labels({"tags": ["a" * 70, "ppo", ""]})
    assert card.tags[1:] == ["ppo", CONFIG.env, "lenet", "train"]
    assert [len(tag) for tag in card.tags[:1]] == [64]
    assert card.group is not None
    assert len(card.group) == 128
