"""PPO: its update against stable-baselines3's own, its interface, its refusals, and learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from support.observation_recorder import CompareObservations, ObservationRecorder
from support.toy_envs import Clock, Columns, Corridor, World, WorldVecEnv, mean_return

from agents.ppo.agent import PPO
from envs.atari import AtariVecEnv
from envs.errors import UserError
from envs.stacking import FrameStacking
from rlcnn.sb3 import EncoderExtractor

SETTINGS: dict[str, Any] = {
    "n_steps": 16,
    "batch_size": 32,
    "n_epochs": 1,
    "learning_rate": 0.02,
    "clip_range": 0.1,
    "ent_coef": 0.01,
    "seed": 3,
    "device": "cpu",
}
# Adam's first steps are as long as the learning rate, whatever the gradient: there one rounding may
# turn a step around.
SGD = {"optimizer_class": torch.optim.SGD}


def sb3_twin(ours: PPO, venv: Any) -> SB3PPO:
    """stable-baselines3's PPO with the same settings, parameters and rollout as ours."""
    theirs = SB3PPO(
        "CnnPolicy",
        venv,
        policy_kwargs={
            "features_extractor_class": EncoderExtractor,
            "features_extractor_kwargs": {"encoder": "nature"},
            "net_arch": [],
            **SGD,
        },
        clip_range_vf=ours.clip_range_vf,
        **{**SETTINGS, "n_epochs": ours.n_epochs},
    )
    theirs.policy.load_state_dict(ours.policy.state_dict())
    mine, buffer = ours.rollout_buffer, theirs.rollout_buffer
    steps, n_envs = mine.buffer_size, mine.n_envs
    everything = torch.arange(steps * n_envs)
    stacks = mine.observations(everything)
    buffer.observations = stacks.numpy().reshape(steps, n_envs, *stacks.shape[1:])
    buffer.actions = mine.actions.numpy()[:, :, None].astype(np.float32)
    for name in ("rewards", "values", "log_probs", "advantages", "returns", "episode_starts"):
        setattr(buffer, name, getattr(mine, name).numpy().copy())
    buffer.full, buffer.pos = True, steps
    return theirs


def same_order(monkeypatch: pytest.MonkeyPatch, steps: int, n_envs: int) -> None:
    """Makes both shuffle alike: theirs numbers steps by environment, ours by time."""
    shuffles = [np.random.default_rng(i).permutation(steps * n_envs) for i in range(20)]
    ours, theirs = iter(shuffles), iter(shuffles)

    def permutation(n: int) -> np.ndarray:
        order = next(theirs)
        return (order % n_envs) * steps + order // n_envs

    monkeypatch.setattr(np.random, "permutation", permutation)
    monkeypatch.setattr(torch, "randperm", lambda n, device: torch.as_tensor(next(ours)))


@pytest.mark.parametrize("clip_range_vf", [None, 0.2])
def test_update_equals_stable_baselines3(
    monkeypatch: pytest.MonkeyPatch, clip_range_vf: float | None
) -> None:
    venv = AtariVecEnv("ALE/Breakout-v5", 4, seed=1, num_threads=1)
    model = PPO("CnnPolicy", venv, clip_range_vf=clip_range_vf, policy_kwargs=SGD, **SETTINGS)
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(64)
    assert model.collect_rollouts(venv, callback, model.rollout_buffer, model.n_steps)
    # A world with something to learn: Breakout pays too seldom for 16 steps.
    rewards = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    model.rollout_buffer.rewards.copy_(torch.as_tensor(rewards))
    model.rollout_buffer.compute_returns_and_advantage(torch.zeros(4), np.zeros(4, dtype=bool))
    # As if other policies had acted: some ratios and values are clipped from the start.
    generator = torch.Generator().manual_seed(0)
    for column in (model.rollout_buffer.values, model.rollout_buffer.log_probs):
        column += 0.15 * torch.randn(column.shape, generator=generator)
    theirs = sb3_twin(model, venv)
    theirs.set_logger(Logger(None, []))
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}

    same_order(monkeypatch, 16, 4)
    model.train()
    theirs.train()

    parameters = dict(model.policy.named_parameters())
    for name, theirs_now in theirs.policy.named_parameters():
        ours_now, start = parameters[name].detach(), before[name]
        # The gradient of the last minibatch, clipped by its norm: the step before it is in it, too.
        gradient = theirs_now.grad
        assert gradient is not None
        scale = gradient.abs().max().item()
        assert scale > 1e-5, f"{name} did not learn"
        torch.testing.assert_close(parameters[name].grad, gradient, rtol=0, atol=1e-3 * scale)
        moved = theirs_now.detach() - start
        reach = moved.abs().max().item()
        torch.testing.assert_close(ours_now - start, moved, rtol=0, atol=1e-2 * reach)
    ours, expected = model.logger.name_to_value, theirs.logger.name_to_value
    assert 0.1 < expected["train/clip_fraction"] < 0.9
    for key in ("value_loss", "policy_gradient_loss", "entropy_loss", "approx_kl", "clip_fraction"):
        assert ours[f"train/{key}"] == pytest.approx(
            expected[f"train/{key}"], rel=1e-3, abs=1e-6
        ), key
    venv.close()


# -- its face --------------------------------------------------------------------------------------

TINY = {"features_extractor_kwargs": {"encoder": "lenet", "encoder_options": {"features_dim": 32}}}


def make_ppo(world: World | None = None, n_envs: int = 8, depth: int = 1, **options: Any) -> PPO:
    settings: dict[str, Any] = {
        "n_steps": 8,
        "batch_size": 32,
        "n_epochs": 2,
        "policy_kwargs": TINY,
        "seed": 0,
        "device": "cpu",
    }
    venv = WorldVecEnv(world or Columns(), n_envs, depth)
    return PPO("CnnPolicy", venv, **{**settings, **options})


class Recorder(BaseCallback):
    """Records what happened, at which step, after how many updates and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[Any, ...]] = []

    def note(self, event: str, *more: Any) -> None:
        recorded = self.logger.name_to_value
        counts = (self.model.num_timesteps, self.num_timesteps, self.model._n_updates)
        self.events.append((event, *counts, self.model.policy.training, sorted(recorded), *more))

    def _on_training_start(self) -> None:
        self.note("training starts", self.locals["total_timesteps"])

    def _on_rollout_start(self) -> None:
        self.note("rollout starts")

    def _on_step(self) -> bool:
        shapes = [np.shape(self.locals[name]) for name in ("new_obs", "rewards", "dones")]
        self.note("step", *shapes, len(self.locals["infos"]))
        return True

    def _on_rollout_end(self) -> None:
        self.note("rollout ends")

    def _on_training_end(self) -> None:
        self.note("training ends")


def test_callbacks_fire_where_stable_baselines3_fires_them() -> None:
    ours = make_ppo(n_envs=2, batch_size=16)
    theirs = SB3PPO(
        "CnnPolicy",
        WorldVecEnv(Columns(), 2),
        n_steps=8,
        batch_size=16,
        n_epochs=2,
        policy_kwargs={"features_extractor_class": EncoderExtractor, **TINY},
        device="cpu",
    )
    records = []
    for model in (ours, theirs):
        model.set_logger(Logger(None, []))
        recorder = Recorder()
        # 40 steps are two rollouts and a half: a third is begun.
        model.learn(40, callback=recorder)
        model.learn(16, callback=recorder, reset_num_timesteps=False)
        records.append(recorder.events)
    assert records[0] == records[1]
    assert [event[0] for event in records[0]].count("rollout ends") == 4


class StopAt(BaseCallback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self.step


def test_steps_never_learned_from_are_not_counted() -> None:
    model = make_ppo()
    recorder = Recorder()
    model.learn(1000, callback=[StopAt(64 * 2 + 24), recorder])
    assert model.num_timesteps == 64 * 2
    assert model._n_updates == 2 * 2
    assert recorder.events[-1][0] == "training ends"
    # It goes on in the middle of the same games.
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 64 * 3
    assert model._n_updates == 2 * 3


def test_progress_is_that_of_the_steps() -> None:
    model = make_ppo(learning_rate=lambda progress: 1e-4 * progress)
    rates = []

    class Rates(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            rates.append(model.policy.optimizer.param_groups[0]["lr"])

        _on_training_end = _on_rollout_start

    model.learn(256, callback=Rates())
    assert rates[1:] == pytest.approx([0.75e-4, 0.5e-4, 0.25e-4, 0])


# -- refusals --------------------------------------------------------------------------------------

IMAGES = spaces.Box(0, 255, (1, 36, 36), np.uint8)
TWO = spaces.Discrete(2)


class Anything(gym.Env):
    """An environment of the given spaces, which nobody steps."""

    def __init__(self, observations: spaces.Space, actions: spaces.Space) -> None:
        self.observation_space, self.action_space = observations, actions


@pytest.mark.parametrize(
    ("observations", "actions", "said"),
    [
        (IMAGES, spaces.Box(-1, 1, (2,)), "actions must be Discrete"),
        (IMAGES, spaces.MultiDiscrete([2, 2]), "actions must be Discrete"),
        (IMAGES, spaces.Discrete(2, start=1), "actions must count from 0"),
        (spaces.Dict({"image": IMAGES}), TWO, "observations must be uint8 images"),
        (spaces.Box(0, 1, (1, 36, 36), np.float32), TWO, "observations must be uint8 images"),
        (spaces.Box(0, 255, (36, 36), np.uint8), TWO, "observations must be uint8 images"),
        (spaces.Box(-1, 1, (4,)), TWO, "observations must be uint8 images"),
    ],
)
def test_what_it_cannot_learn_from_is_refused_in_one_line(
    observations: spaces.Space, actions: spaces.Space, said: str
) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        PPO("CnnPolicy", Anything(observations, actions), device="cpu")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_sde": True}, "use_sde is not supported"),
        ({"rollout_buffer_class": RolloutBuffer}, "rollout_buffer_class is not supported"),
        ({"rollout_buffer_kwargs": {"a": 1}}, "rollout_buffer_class is not supported"),
        ({"policy_kwargs": {"share_features_extractor": False}}, "one encoder serves"),
        (
            {"policy_kwargs": {"precision": "fp16"}},
            'precision must be one of "fp32", "tf32", "bf16"',
        ),
        (
            {"batch_size": 60},
            r"batch_size 60 does not divide the rollout of 64 steps \(8 environments x 8 steps\);"
            " the nearest that does is 64",
        ),
        ({"batch_size": 24}, "the nearest that does is 16"),
        ({"batch_size": 1}, "batch_size 1 has no spread"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"n_steps": 0}, "n_steps must be at least 1, not 0"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(
    options: dict[str, Any], said: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        make_ppo(**options)
    assert "\n" not in str(refusal.value)
    assert not [w for w in recwarn if "mini-batch" in str(w.message)]


def test_a_normalising_wrapper_is_refused() -> None:
    with pytest.raises(UserError, match="VecNormalize would normalize the images"):
        PPO("CnnPolicy", VecNormalize(WorldVecEnv(Columns())), device="cpu")


def test_a_minibatch_of_one_is_possible_without_normalised_advantages() -> None:
    model = make_ppo(n_envs=1, n_steps=2, batch_size=1, normalize_advantage=False)
    assert model.learn(2)._n_updates == 2


# -- the update's edges ----------------------------------------------------------------------------


def optimizer_steps(model: PPO) -> int:
    return int(next(iter(model.policy.optimizer.state.values()))["step"])


def test_a_target_divergence_ends_the_update_early() -> None:
    model = make_ppo(target_kl=1e-9, learning_rate=1e-2, n_epochs=5)
    model.learn(64)
    # The first minibatch is learned from by the policy that collected it: no divergence yet.
    assert optimizer_steps(model) == 1
    assert model._n_updates == 1
    model = make_ppo(target_kl=1e9, n_epochs=5)
    model.learn(64)
    assert optimizer_steps(model) == 5 * 2
    assert model._n_updates == 5


@pytest.mark.parametrize("spoilt", ["loss", "parameters"])
def test_a_training_that_is_no_longer_finite_stops(spoilt: str) -> None:
    model = make_ppo(learning_rate=float("inf") if spoilt == "parameters" else 3e-4)
    if spoilt == "loss":
        with torch.no_grad():
            model.policy.value_net.bias.fill_(float("nan"))
    else:
        # One minibatch, once: its loss is finite, and what it makes of the parameters is not.
        model.batch_size, model.n_epochs = 64, 1
    with pytest.raises(UserError, match=r"^the loss became nan by step 64: training stopped"):
        model.learn(64)
    with pytest.raises(UserError, match="the loss became nan"):
        model.check_finite()


def test_the_entropy_bonus_may_be_a_schedule() -> None:
    def learned(ent_coef: Any) -> torch.Tensor:
        model = make_ppo(ent_coef=ent_coef).learn(3 * 64)
        return torch.cat([p.detach().flatten() for p in model.policy.parameters()])

    assert torch.equal(learned(0.5), learned(lambda _: 0.5))
    assert not torch.equal(learned(0.5), learned(lambda progress: 0.5 * progress))
    model = make_ppo(ent_coef=LinearSchedule(0.5, 0.1, 1.0)).learn(2 * 64)
    assert model.logger.name_to_value["train/ent_coef"] == pytest.approx(0.1)


def test_every_rollout_is_acted_by_what_was_learned_last() -> None:
    class Compare(BaseCallback):
        rollouts = 0

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            rollout = self.model.rollout_buffer  # type: ignore[attr-defined]
            batch = rollout.batch(torch.arange(64))
            with torch.no_grad():
                computed = self.model.policy.evaluate_actions(  # type: ignore[operator]
                    batch.observations, batch.actions
                )
            torch.testing.assert_close(computed[0].flatten(), batch.old_values, rtol=0, atol=5e-3)
            torch.testing.assert_close(computed[1], batch.old_log_prob, rtol=0, atol=5e-3)
            self.rollouts += 1

    compare = Compare()
    policy = {**TINY, "precision": "bf16"}
    model = make_ppo(learning_rate=1e-2, policy_kwargs=policy)
    before = model.policy.value_net.bias.item()
    model.learn(4 * 64, callback=compare)
    assert compare.rollouts == 4
    # Otherwise acting by the first policy for ever would pass, too.
    assert abs(model.policy.value_net.bias.item() - before) > 1e-2


@pytest.mark.parametrize("depth", [1, 3])
def test_stacks_are_right_however_learning_goes_on(depth: int) -> None:
    recorder = ObservationRecorder(WorldVecEnv(Columns(), 2, depth))
    compare = CompareObservations(recorder)
    model = make_ppo(n_envs=2, depth=depth, n_steps=6, batch_size=12)
    model.set_env(recorder)
    model.learn(24, callback=compare)
    model.learn(24, callback=compare, reset_num_timesteps=False)
    model.learn(24, callback=compare)
    # Stopped within a rollout, in mid-game.
    model.learn(24, callback=[compare, StopAt(24 + 18)], reset_num_timesteps=False)
    model.learn(24, callback=compare, reset_num_timesteps=False)
    assert compare.rollouts == 9


# -- stable-baselines3's own tools -----------------------------------------------------------------


def test_saving_and_loading_by_stable_baselines3(tmp_path: Path) -> None:
    model = make_ppo(Columns(1), depth=2, clip_range=0.3, target_kl=0.5)
    model.learn(64)
    model.save(tmp_path / "agent")
    observations = model.env.reset()  # type: ignore[union-attr]
    expected, _ = model.predict(observations, deterministic=True)  # type: ignore[arg-type]

    alone = PPO.load(tmp_path / "agent", device="cpu")
    got, _ = alone.predict(observations, deterministic=True)  # type: ignore[arg-type]
    np.testing.assert_array_equal(got, expected)
    assert (alone.num_timesteps, alone.target_kl, alone.n_steps) == (64, 0.5, 8)
    for name, tensor in model.policy.state_dict().items():
        torch.testing.assert_close(alone.policy.state_dict()[name], tensor, rtol=0, atol=0)

    alone.set_env(WorldVecEnv(Columns(1), 8, depth=2))
    assert alone.rollout_buffer.codec.frame_stacking == FrameStacking(depth=2, channels=1)
    alone.learn(64, reset_num_timesteps=False)
    assert alone.num_timesteps == 128

    wider = PPO.load(tmp_path / "agent", env=WorldVecEnv(Columns(1), 16, depth=2), device="cpu")
    wider.learn(128, reset_num_timesteps=False)
    assert wider.num_timesteps == 64 + 128


def test_predict_takes_one_observation_or_many() -> None:
    model = make_ppo()
    one, _ = model.predict(np.zeros((1, 36, 36), np.uint8))
    many, _ = model.predict(np.zeros((5, 1, 36, 36), np.uint8))
    assert np.shape(one) == ()
    assert np.shape(many) == (5,)


# -- learning --------------------------------------------------------------------------------------

LEARNING: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 64,
    "n_epochs": 4,
    "learning_rate": 1e-3,
    "ent_coef": 0.01,
}


@pytest.mark.slow
def test_it_learns_what_is_seen_only_in_an_older_frame() -> None:
    world = Columns(delay=1)
    model = make_ppo(world, depth=2, gamma=0.5, **LEARNING).learn(4_096)
    assert mean_return(model, world, depth=2) > 0.95 * world.best_return
    returns, _ = evaluate_policy(
        model, WorldVecEnv(world, 8, depth=2), n_eval_episodes=8, deterministic=True, warn=False
    )
    assert returns > 0.9 * world.best_return


def test_it_learns_to_pass_by_a_small_reward_for_a_great_one() -> None:
    world = Corridor()
    model = make_ppo(world, gamma=0.95, **LEARNING).learn(4_096)
    assert mean_return(model, world) == world.best_return


@pytest.mark.slow
def test_it_values_a_life_without_end_as_such() -> None:
    model = make_ppo(Clock(), gamma=0.8, **{**LEARNING, "learning_rate": 5e-3}).learn(3_072)
    observation = torch.as_tensor(WorldVecEnv(Clock(), 1).reset())
    with torch.no_grad():
        assert model.policy.predict_values(observation).item() == pytest.approx(5, abs=0.5)


@pytest.mark.slow
def test_a_compiled_update_equals_the_one_as_it_stands() -> None:
    # One after the other, for each begins by seeding torch.
    policy = {**TINY, **SGD}
    runs = (make_ppo(policy_kwargs=policy, compile_update=on).learn(64) for on in (False, True))
    plain, compiled = runs
    for name, tensor in plain.policy.state_dict().items():
        torch.testing.assert_close(compiled.policy.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)
