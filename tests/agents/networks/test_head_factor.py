"""The first layer behind an encoder has a learning rate of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import NatureCNN
from support.toy_envs import Columns, WorldVecEnv
from support.transfer_agents import DEPTH, LENET, N_ENVS, PER_FRAME, ROLLOUT, make

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.pqn.agent import PQN
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from envs.errors import UserError

RATE = 1e-2
FACTORS = {"encoder_lr_factor": 0.1, "head_lr_factor": 0.3}
OPTIONS: dict[Any, dict[str, Any]] = {
    PPO: {"n_steps": 8, "batch_size": 16},
    PQN: {"n_steps": 8, "batch_size": 16},
    DQN: {"buffer_size": 100},
}


def make_agent(algorithm: Any, policy: dict[str, Any], **options: Any) -> Any:
    model = algorithm(
        "CnnPolicy",
        WorldVecEnv(Columns(1), N_ENVS, depth=DEPTH),
        learning_rate=RATE,
        policy_kwargs={"features_extractor_kwargs": LENET, **policy},
        device="cpu",
        **OPTIONS[algorithm],
        **options,
    )
    model.set_logger(Logger(None, []))
    return model


STREAMS = {"head_units": 4, "noisy": True}
PROJECTION = "features_extractor.encoder.projection"


@pytest.mark.parametrize(
    ("algorithm", "policy", "options", "first", "others"),
    [
        (PPO, {}, {}, {"action_net", "value_net"}, set()),
        (
            PPO,
            {"net_arch": [6]},
            {},
            {"mlp_extractor.policy_net.0", "mlp_extractor.value_net.0"},
            {"action_net", "value_net"},
        ),
        (
            PPO,
            {"features_extractor_kwargs": PER_FRAME},
            {},
            {f"{PROJECTION}.linear", f"{PROJECTION}.norm"},
            {"action_net", "value_net"},
        ),
        (DQN, {"net_arch": [6]}, {}, {"q_net.0"}, {"q_net.2"}),
        (
            DQN,
            {},
            {"head": "dueling-c51", "atoms": 5, **STREAMS},
            {"q_net.advantage.hidden", "q_net.value.hidden"},
            {"q_net.advantage.output", "q_net.value.output"},
        ),
        (DQN, {}, {"head": "qr", "quantiles": 3}, {"q_net.advantage.output"}, set()),
        (
            DQN,
            {},
            {"head": "iqn", **STREAMS},
            {"q_net.advantage.hidden"},
            {"q_net.advantage.output", "q_net.embedding"},
        ),
        (PQN, {}, {}, {"q_net.0"}, set()),
    ],
)
def test_the_layers_that_take_the_encoders_output_are_a_group(
    algorithm: Any,
    policy: dict[str, Any],
    options: dict[str, Any],
    first: set[str],
    others: set[str],
) -> None:
    model = make_agent(algorithm, {**policy, **FACTORS}, **options)
    network = model.policy if algorithm is PPO else model.policy.q_net
    layers = {id(p): name.rpartition(".")[0] for name, p in network.named_parameters()}
    groups = model.policy.optimizer.param_groups
    found = {group["lr_factor"]: {layers[id(p)] for p in group["params"]} for group in groups}
    assert found.pop(0.3) == first
    assert found.pop(1.0, set()) == others
    assert all(name.startswith("features_extractor.encoder.") for name in found.pop(0.1))
    assert not found
    assert {group["lr"] for group in groups} == {RATE * group["lr_factor"] for group in groups}
    assert sum(len(group["params"]) for group in groups) == len(layers)


@pytest.mark.parametrize("algorithm", [PPO, DQN, PQN])
def test_a_schedule_scales_it_and_a_resume_keeps_it(algorithm: Any, tmp_path: Path) -> None:
    policy = {**FACTORS, "net_arch": [6]}
    model, again = (make_agent(algorithm, policy) for _ in range(2))
    model.learning_rate = lambda progress: RATE * (0.5 + progress)
    model._setup_lr_schedule()
    model.learn(4 * ROLLOUT)
    save_checkpoint(model, tmp_path)
    load_checkpoint(again, tmp_path)
    rates = [
        {g["lr_factor"]: g["lr"] for g in each.policy.optimizer.param_groups}
        for each in (model, again)
    ]
    assert rates[0] == rates[1]
    assert rates[0].keys() == {0.1, 0.3, 1.0}
    assert rates[0] != {factor: RATE * factor for factor in rates[0]}
    assert rates[0] == {factor: pytest.approx(rates[0][1.0] * factor) for factor in rates[0]}


def test_it_serves_a_frozen_encoder() -> None:
    model = make(PPO, {**LENET, "frozen": True}, head_lr_factor=0.3)
    assert 0.3 in {group["lr_factor"] for group in model.policy.optimizer.param_groups}


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"head_lr_factor": 0}, "head_lr_factor must be a positive number, not 0"),
        (
            {
                "head_lr_factor": 0.3,
                "features_extractor_class": NatureCNN,
                "features_extractor_kwargs": {},
            },
            "head_lr_factor is for encoders of ours, not NatureCNN",
        ),
    ],
    ids=["zero", "another extractor"],
)
def test_a_bad_factor_is_one_line(policy: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_agent(PPO, policy)
