"""DQN: its update, its counters, and learning."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from support.dqn_agents import TINY, make_dqn
from support.toy_envs import Clock, Columns, Corridor, World, WorldVecEnv, mean_return

from agents.dqn.agent import DQN
from agents.storage.replay import ReplayBatch

pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(model: DQN | SB3DQN) -> list[torch.Tensor]:
    nets = (model.q_net, model.q_net_target)
    return [p.detach().clone() for net in nets for p in net.parameters()]


def assert_bit_equal(one: DQN, other: DQN) -> None:
    for ours, theirs in zip(parameters(one), parameters(other), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "world, depth, steps, options",
    [
        pytest.param(Columns(), 1, 1200, {}, marks=pytest.mark.slow),
        pytest.param(Columns(delay=1), 2, 2000, {}, marks=pytest.mark.slow),
        pytest.param(Corridor(), 1, 1400, {"gamma": 0.9}, marks=pytest.mark.slow),
        (Corridor(), 1, 1400, {"gamma": 0.9, "n_steps": 3}),
    ],
    ids=["columns", "columns of the older frame", "corridor", "corridor with 3-step returns"],
)
def test_tiny_worlds_are_solved(
    world: World, depth: int, steps: int, options: dict[str, Any]
) -> None:
    model = make_dqn(world, depth=depth, **options).learn(steps)
    assert mean_return(model, world, depth) >= 0.95 * world.best_return


@pytest.mark.slow
@pytest.mark.parametrize("n_steps", [1, 2])
def test_what_a_truncation_cut_off_is_worth_what_it_would_have_been(n_steps: int) -> None:
    model = make_dqn(Clock(), gamma=0.5, n_steps=n_steps, target_update_interval=40).learn(1600)
    observations = torch.as_tensor(model.env.reset())  # type: ignore[union-attr]
    with torch.no_grad():
        # Taken for terminal, the last of three steps would be worth 1 and their mean about 1.5.
        torch.testing.assert_close(
            model.q_net(observations), torch.full((8, 2), 2.0), atol=0.1, rtol=0
        )


def sb3_samples(batch: ReplayBatch, gamma: float) -> ReplayBufferSamples:
    terminal = batch.discounts == 0
    discounts = torch.where(terminal, torch.tensor(gamma), batch.discounts)
    return ReplayBufferSamples(
        batch.observations,
        batch.actions[:, None],
        batch.next_observations,
        terminal.float()[:, None],
        batch.rewards[:, None],
        discounts[:, None],
    )


@pytest.mark.parametrize("n_steps", [1, 3])
def test_updates_equal_stable_baselines3s_on_the_same_batches(n_steps: int) -> None:
    options: dict[str, Any] = {
        "learning_rate": 0.1,
        "n_steps": n_steps,
        "target_update_interval": 8,
        "max_grad_norm": 0.5,
        "seed": 0,
        "device": "cpu",
    }
    # Adam's first steps are as long as the learning rate, whatever the gradient: there one rounding
    # may turn a step around.
    policy = {"optimizer_class": torch.optim.SGD}
    ours = make_dqn(depth=4, **{**options, "policy_kwargs": policy})
    venv = WorldVecEnv(Columns(), 8, 4)
    theirs = SB3DQN("CnnPolicy", venv, buffer_size=80, policy_kwargs=policy, **options)
    for net in ("q_net", "q_net_target"):
        pairs = zip(getattr(ours, net).parameters(), getattr(theirs, net).parameters(), strict=True)
        with torch.no_grad():
            for mine, other in pairs:
                mine.copy_(other)
    ours.learn(200)  # Random steps only: they fill the replay.
    _, callback = theirs._setup_learn(200)
    callback.on_training_start({}, {})

    assert ours.replay_buffer is not None
    batches = [ours.replay_buffer.sample(32, ours._learner.returns) for _ in range(10)]
    queues = [list(batches), [sb3_samples(batch, ours.gamma) for batch in batches]]
    ours.replay_buffer.sample = lambda *_: queues[0].pop(0)  # type: ignore[assignment,method-assign]
    theirs.replay_buffer.sample = lambda *_, **__: queues[1].pop(0)  # type: ignore[union-attr]
    start = parameters(ours)
    for update in range(10):
        for model in (ours, theirs):
            model.train(1, 32)
            model.num_timesteps += 8
            if update == 4:
                model._on_step()
        if update in (0, 9):
            for mine, other in zip(parameters(ours), parameters(theirs), strict=True):
                torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    moved = [(a - b).abs().max().item() for a, b in zip(start, parameters(ours), strict=True)]
    assert min(moved) > 1e-4
    assert ours._n_updates == theirs._n_updates == 10


def test_the_same_seed_trains_the_same_parameters_whatever_is_evaluated() -> None:
    class Evaluates(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls % 10 == 0:
                self.model.predict(np.zeros((3, 1, 36, 36), np.uint8), deterministic=False)
            return True

    short = {"learning_starts": 80}
    one, other = make_dqn(**short).learn(200), make_dqn(**short).learn(200, Evaluates())
    assert one._n_updates >= 30
    assert_bit_equal(one, other)
    assert_bit_differ(one, make_dqn(seed=1, **short).learn(200))


def assert_bit_differ(one: DQN, other: DQN) -> None:
    pairs = zip(parameters(one), parameters(other), strict=True)
    assert not all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("n_envs", [1, 3, 8])
@pytest.mark.parametrize(
    "train_freq, gradient_steps, due", [(4, 1, 50), (4, 3, 150), (7, 1, 29), (5, -1, 200)]
)
def test_updates_follow_environment_steps(
    n_envs: int, train_freq: int, gradient_steps: int, due: int
) -> None:
    model = make_dqn(
        n_envs=n_envs,
        train_freq=train_freq,
        gradient_steps=gradient_steps,
        learning_starts=100,
        target_update_interval=10,
    )
    counts = {"updates": 0}
    model.train = lambda steps, _: counts.update(updates=counts["updates"] + steps)  # type: ignore[assignment,method-assign]
    model.learn(150)
    model.learn(150, reset_num_timesteps=False)
    # Multiples of train_freq after step 100, up to the last step taken.
    last = model.num_timesteps
    rounds = last // train_freq - 100 // train_freq
    assert counts["updates"] == rounds * (gradient_steps if gradient_steps > 0 else train_freq)
    assert due <= counts["updates"] <= due * 1.2


@pytest.mark.parametrize("n_envs, steps", [(1, 20), (8, 104), (24, 120)])
def test_the_target_network_follows_environment_steps(n_envs: int, steps: int) -> None:
    model = make_dqn(n_envs=n_envs, tau=0.1, target_update_interval=10, learning_starts=10_000)
    with torch.no_grad():
        for parameter in model.q_net.parameters():
            parameter.fill_(1.0)
        for parameter in model.q_net_target.parameters():
            parameter.fill_(0.0)
    model.learn(steps)
    expected = 1 - 0.9 ** (model.num_timesteps // 10)
    for parameter in model.q_net_target.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected))


class Events(BaseCallback):
    """Records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, int]] = []

    def _note(self, hook: str) -> None:
        self.events.append((hook, self.num_timesteps))

    def _on_training_start(self) -> None:
        self._note("training start")
        assert self.locals["total_timesteps"] == 50

    def _on_rollout_start(self) -> None:
        self._note("rollout start")

    def _on_step(self) -> bool:
        assert {"actions", "new_obs", "rewards", "dones", "infos"} <= set(self.locals)
        self._note("step")
        return True

    def _on_rollout_end(self) -> None:
        self._note("rollout end")

    def _on_training_end(self) -> None:
        self._note("training end")


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_acting_and_bootstrapping_follow_what_they_are_copies_of(tau: float) -> None:
    """Also with weights that were cast before: the copies replace the networks."""
    observations = torch.as_tensor(WorldVecEnv(Columns(), 8, 1).reset())

    def same(one: Any, other: Any) -> bool:
        with torch.no_grad():
            return torch.equal(one(observations), other(observations))

    class Compare(BaseCallback):
        compared, moved = 0, 0

        def _on_rollout_start(self) -> None:
            self.first = model._learner.target.network(observations).detach().clone()

        def _on_step(self) -> bool:
            assert same(model._acting_copy.network, model.q_net)
            self.compared += 1
            return True

        def _on_rollout_end(self) -> None:
            assert same(model._learner.target.network, model.q_net_target)
            self.moved += not torch.equal(model._learner.target.network(observations), self.first)

    model = make_dqn(
        learning_rate=1e-2,
        learning_starts=16,
        target_update_interval=32,
        tau=tau,
        policy_kwargs={**TINY, "precision": "bf16"},
    )
    compare = Compare()
    model.learn(200, callback=compare)
    assert compare.compared > 20
    assert compare.moved > 3

    other = make_dqn(policy_kwargs={**TINY, "precision": "bf16"}, seed=9)
    other.policy.load_state_dict(model.policy.state_dict())
    other._setup_learn(8)
    assert same(other._learner.target.network, model.q_net_target)


def test_callbacks_fire_where_stable_baselines3_fires_them() -> None:
    theirs, ours = Events(), Events()
    venv = WorldVecEnv(Columns(), 1)
    options: dict[str, Any] = {"buffer_size": 100, "learning_starts": 20, "train_freq": 4}
    SB3DQN("CnnPolicy", venv, device="cpu", **options).learn(50, theirs)
    make_dqn(n_envs=1, **options).learn(50, ours)
    assert ours.events == theirs.events
    assert ("rollout end", 52) in ours.events


def test_every_step_counted_is_stored_and_learned_from_when_a_callback_stops() -> None:
    model = make_dqn(n_envs=2, learning_starts=0, buffer_size=1000)
    model.learn(500, StopTrainingOnMaxEpisodes(max_episodes=3))
    assert model.replay_buffer is not None
    # Three episodes of eight steps in each of two environments.
    assert len(model.replay_buffer) == model.num_timesteps == 3 * 8 * 2
    assert model._n_updates == model.num_timesteps // 4
    model.learn(100, reset_num_timesteps=False)
    model.replay_buffer.check_valid()
    assert model.num_timesteps == 148
    assert model._n_updates == 148 // 4


def test_each_environment_has_its_own_coin() -> None:
    model = make_dqn()
    observations = np.zeros((4000, 1, 36, 36), np.uint8)
    greedy, _ = model.predict(observations, deterministic=True)
    assert (greedy == greedy[0]).all()
    model.exploration_rate = 0.4
    actions, _ = model.predict(observations)
    # 0.4 of them are drawn from four actions, so 0.3 differ; standard deviation 0.007.
    assert np.mean(actions != greedy) == pytest.approx(0.3, abs=0.03)
    single, state = model.predict(observations[0])
    assert single.shape == ()
    assert state is None


def test_the_exploration_schedule_is_stable_baselines3s() -> None:
    rates: dict[type, list[float]] = {}

    class Rates(BaseCallback):
        def _on_step(self) -> bool:
            rates[type(self.model)].append(self.model.exploration_rate)  # type: ignore[attr-defined]
            return True

    for algorithm in (DQN, SB3DQN):
        rates[algorithm] = []
        venv = WorldVecEnv(Columns(), 2)
        options: dict[str, Any] = {"exploration_fraction": 0.3, "learning_starts": 1000}
        algorithm("CnnPolicy", venv, buffer_size=100, device="cpu", **options).learn(200, Rates())
    # Before its first step stable-baselines3's rate is 0, ours the schedule's.
    assert rates[DQN][1:] == rates[SB3DQN][1:]
    assert rates[DQN][0] == 1.0


def test_evaluation_by_stable_baselines3_works() -> None:
    # A game of three steps that earn 1, whatever is done.
    model, venv = make_dqn(Clock()), WorldVecEnv(Clock(), 4)
    assert evaluate_policy(model, venv, n_eval_episodes=8, warn=False) == (3.0, 0.0)


def test_stable_baselines3s_save_and_load_work(tmp_path: Path) -> None:
    model = make_dqn(depth=2).learn(240)
    model.save(tmp_path / "model.zip")
    venv = WorldVecEnv(Columns(), 4, 2, seed=5)
    loaded = DQN.load(tmp_path / "model.zip", env=venv, device="cpu")
    assert_bit_equal(model, loaded)
    assert loaded.num_timesteps == model.num_timesteps
    loaded.learn(100, reset_num_timesteps=False)
    without_env = DQN.load(tmp_path / "model.zip", device="cpu")
    observations = venv.reset()
    actions = [m.predict(observations, deterministic=True)[0] for m in (model, without_env)]
    assert np.array_equal(*actions)


def test_two_resumes_of_one_state_are_bit_identical(tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    model = make_dqn(n_steps=3).learn(280)
    model.save_replay_buffer(path)
    state = {
        "parameters": model.get_parameters(),
        "exploration": model.exploration.rng.bit_generator.state,
        "steps": model.num_timesteps,
    }

    def resumed(seed: int) -> DQN:
        other = make_dqn(n_steps=3, seed=seed)
        # The optimiser would go on in the very tensors it is given.
        other.set_parameters(copy.deepcopy(state["parameters"]))  # type: ignore[arg-type]
        other.load_replay_buffer(path)
        other.exploration.rng.bit_generator.state = state["exploration"]  # type: ignore[assignment]
        other.num_timesteps = state["steps"]  # type: ignore[assignment]
        other.env.seed(7)  # type: ignore[union-attr]
        return other.learn(120, reset_num_timesteps=False)

    one, other = resumed(seed=1), resumed(seed=2)
    assert one.num_timesteps == 400
    assert_bit_equal(one, other)
    assert one.replay_buffer is not None
    one.replay_buffer.check_valid()


def test_resumed_without_its_replay_it_collects_before_it_learns() -> None:
    model = make_dqn(learning_starts=200)
    model.num_timesteps = 4000
    model.learn(192, reset_num_timesteps=False)
    assert model._n_updates == 0
    model.learn(80, reset_num_timesteps=False)
    assert model._n_updates == 80 // 4


def test_training_goes_on_without_a_reset_between_two_calls_of_learn() -> None:
    options = {"exploration_fraction": 1e-9, "learning_starts": 40}
    whole = make_dqn(**options).learn(160)
    halves = make_dqn(**options).learn(80)
    halves.learn(80, reset_num_timesteps=False)
    assert whole._n_updates == 30
    assert_bit_equal(whole, halves)
