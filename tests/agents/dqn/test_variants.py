"""Every head and pair of DQN's parts: trained, saved, resumed; and the options of exploration."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from support.dqn_agents import make_dqn
from support.pretend_gpu import PretendGPU
from support.run_files import assert_equal
from support.toy_envs import Columns

from agents.collect.exploration import EpsilonGreedy
from agents.dqn.actor import scheduled_epsilon, spread_epsilon
from agents.dqn.agent import DQN
from agents.networks.head_options import HeadName
from agents.train.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS = get_args(HeadName)
PARTS: dict[str, dict[str, Any]] = {
    "double": {"double": True},
    "munchausen": {"munchausen": True},
    "noisy": {"noisy": True},
    "3-step": {"n_steps": 3},
    "prioritized": {"prioritized": True},
    "drq": {"augment": "drq"},
    "frozen": {"frozen": True},
}
# By default each head, and each pair of parts that go together.
BY_DEFAULT = {
    "q double 3-step",
    "q noisy frozen",
    "dueling munchausen 3-step",
    "c51 double noisy",
    "qr munchausen noisy",
    "iqn 3-step frozen",
    "dueling-c51 noisy 3-step",
    "dueling-qr double frozen",
    "dueling-iqn munchausen frozen",
    "iqn prioritized drq",
    "dueling-c51 noisy prioritized",
}


def ways() -> list[Any]:
    """Each head with every pair of parts."""
    made = []
    for head, pair in itertools.product(HEADS, itertools.combinations(PARTS, 2)):
        if set(pair) in ({"double", "munchausen"}, {"frozen", "drq"}):
            continue
        if "c51" in head and "munchausen" in pair:
            continue
        way = " ".join([head, *pair])
        made.append(pytest.param(way, marks=() if way in BY_DEFAULT else pytest.mark.slow))
    assert {str(one.values[0]) for one in made} >= BY_DEFAULT
    return made


def make(way: str, **options: Any) -> DQN:
    """A small agent of a head and parts."""
    head, *parts = way.split()
    for part in parts:
        options |= PARTS[part]
    extractor: dict[str, Any] = {"encoder": "lenet", "encoder_options": {"features_dim": 16}}
    extractor["frozen"] = options.pop("frozen", False)
    settings: dict[str, Any] = {
        "head": head,
        "head_units": 0 if way.startswith("q ") else 16,
        "quantiles": 8,
        "atoms": 11,
        "v_min": 0.0,
        "v_max": 8.0,
        "iqn_samples": 4,
        "iqn_target_samples": 4,
        "iqn_acting_samples": 4,
        "cosines": 8,
        "learning_starts": 40,
        "buffer_size": 400,
        "batch_size": 8,
        "target_update_interval": 64,
        "train_freq": 8,
        "n_envs": 4,
        "policy_kwargs": {"features_extractor_kwargs": extractor},
    }
    return make_dqn(Columns(), **{**settings, **options})


def state_of(model: DQN) -> Any:
    return model.policy.state_dict(), model.draws.state()


@pytest.mark.parametrize("way", ways())
def test_it_trains_repeats_itself_and_resumes_exactly(way: str, tmp_path: Path) -> None:
    model = make(way).learn(200)
    assert model._n_updates == 20
    model.check_finite()
    assert_equal(state_of(make(way).learn(200)), state_of(model))

    save_checkpoint(model, tmp_path)
    resumed = make(way, seed=99)
    resumed.set_logger(Logger(None, []))
    load_checkpoint(resumed, tmp_path)
    assert_equal(state_of(resumed), state_of(model))
    ends = []
    for one in (model, resumed):
        assert one.replay_buffer is not None
        one.replay_buffer.needs_begin = True
        one._setup_learn(200, reset_num_timesteps=False)
        one.train(3, 8)
        observations = np.zeros((4, 1, 36, 36), np.uint8)
        with torch.no_grad():
            network, draws = one._acting_copy.network, one.draws.acting
            values = network(torch.as_tensor(observations), draws)
        greedy, _ = one.predict(observations, deterministic=True)
        ends.append((state_of(one), values, greedy.tolist(), one.loss_sum, one.loss_count))
    assert_equal(*ends)


@pytest.mark.parametrize("head", HEADS)
def test_heads_are_captured_and_overlap_on_a_pretend_gpu(
    head: str, pretend_gpu: PretendGPU
) -> None:
    way = f"{head} double" if head == "c51" else f"{head} munchausen" if head == "qr" else head
    options: dict[str, Any] = {"noisy": head in ("q", "dueling-iqn"), "buffer_size": 128}
    options |= {"exploration_fraction": 1e-9, "device": "cuda", "cuda_graphs": True}
    model = make(way, overlap=True, **options).learn(120)
    assert model._n_updates == 10
    assert pretend_gpu.captures == 4
    assert pretend_gpu.replays
    assert model.draws.acting is None or model.draws.acting.device.type == "cuda"


def test_evaluation_has_no_noise_and_acting_has() -> None:
    model = make("dueling-iqn", noisy=True, sigma0=2.0)
    observations = torch.zeros(2, 1, 36, 36, dtype=torch.uint8)
    with torch.no_grad():
        plain = model.q_net(observations)
        assert torch.equal(plain, model.q_net(observations))
        drawn = [model.q_net(observations, model.draws.acting) for _ in range(2)]
    assert not torch.equal(*drawn)
    before = model.draws.state()
    actions = {int(model.predict(observations[:1].numpy(), deterministic=True)[0][0])}
    assert actions == {int(plain[0].argmax())}
    assert model.draws.state() == before


def test_a_zip_keeps_the_variant(tmp_path: Path) -> None:
    model = make("dueling-iqn 3-step", exploration_spread=7.0).learn(64)
    model.save(tmp_path / "model.zip")
    loaded = DQN.load(tmp_path / "model.zip", env=model.env, device="cpu")
    assert loaded.variant == model.variant
    assert_equal(loaded.policy.state_dict(), model.policy.state_dict())
    loaded.learn(64)
    policy = tmp_path / "policy.zip"
    model.policy.save(str(policy))
    again = type(model.policy).load(str(policy))
    assert_equal(again.state_dict(), model.policy.state_dict())


def test_adams_epsilon_is_an_option() -> None:
    assert make("q", adam_eps=1.5e-4).policy.optimizer.param_groups[0]["eps"] == 1.5e-4
    assert make("q").policy.optimizer.param_groups[0]["eps"] == 1e-8


def test_epsilon_falls_over_steps_and_can_be_switched_off() -> None:
    model = make("q", exploration_steps=100, exploration_end=0.5)
    model.exploration_final_eps = 0.1
    epsilons = [
        scheduled_epsilon(model, 1 - step / 1000, 1000) for step in (0, 50, 100, 499, 500, 1000)
    ]
    assert epsilons == pytest.approx([1.0, 0.55, 0.1, 0.1, 0, 0])
    # Longer runs explore for as many steps.
    assert scheduled_epsilon(model, 1 - 50 / 4000, 4000) == pytest.approx(0.55)
    # Its end lies beyond that of a short run.
    assert scheduled_epsilon(model, 1 - 20 / 50, 50) == pytest.approx(0.82)
    by_share = make("q", exploration_fraction=0.5)
    assert scheduled_epsilon(by_share, 0.75, 1000) == pytest.approx(0.525)


def test_environments_explore_as_in_apex() -> None:
    epsilons = spread_epsilon(0.4, 5, 7.0)
    assert isinstance(epsilons, np.ndarray)
    assert epsilons == pytest.approx([0.4 ** (1 + i / 4 * 7) for i in range(5)])
    assert spread_epsilon(0.4, 5, 0.0) == spread_epsilon(0.4, 1, 7.0) == 0.4
    explore = EpsilonGreedy(10**6, np.random.SeedSequence(0))
    drawn = [explore.choose((5,), epsilons, lambda: np.full(5, -1)) for _ in range(2000)]
    rates = (np.array(drawn) >= 0).mean(axis=0)
    assert rates == pytest.approx(epsilons, abs=0.04)
    assert (np.array([explore.choose((5,), spread_epsilon(1.0, 5, 7.0), list)]) >= 0).all()
