"""Zips that were saved when modules had other names are loaded."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy_envs import Columns, WorldVecEnv

from agents import DQN, PPO
from agents.networks.policies import PixelActorCriticPolicy, PixelDQNPolicy
from agents.sb3.agent import FORMER_NAMES, former_names
from agents.storage.replay import FrameReplay
from agents.storage.rollout import FrameRollout
from rlcnn.sb3 import EncoderExtractor

PICKLED = [PixelActorCriticPolicy, PixelDQNPolicy, FrameReplay, FrameRollout, EncoderExtractor]


@pytest.mark.parametrize(
    "algorithm, options",
    [(PPO, {"n_steps": 8, "batch_size": 8}), (DQN, {"buffer_size": 64})],
    ids=["ppo", "dqn"],
)
def test_a_zip_that_names_former_modules_is_loaded(
    algorithm: Any, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = {"features_extractor_class": EncoderExtractor}
    model = algorithm(
        "CnnPolicy", WorldVecEnv(Columns(), 2), policy_kwargs=extractor, device="cpu", **options
    )
    former = {new: old for old, new in FORMER_NAMES.items()}
    with monkeypatch.context() as patch, former_names():
        for pickled in PICKLED:
            patch.setattr(pickled, "__module__", former[pickled.__module__])
        model.save(tmp_path / "agent.zip")

    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        assert "agents.policies" in str(json.loads(archive.read("data"))["policy_class"])
    loaded = algorithm.load(tmp_path / "agent.zip", device="cpu")
    for key, value in model.policy.state_dict().items():
        torch.testing.assert_close(loaded.policy.state_dict()[key], value, rtol=0, atol=0)
    assert not set(FORMER_NAMES) & set(sys.modules)
