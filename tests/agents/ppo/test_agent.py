"""PPO: its update against stable-baselines3's own, its interface, its refusals, and learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from support.observation_recorder import CompareObservations, ObservationRecorder
from support.ppo_agents import TINY, StopAt, make_ppo
from support.toy_envs import Clock, Columns, Corridor, WorldVecEnv, mean_return

from agents.ppo.agent import PPO
from envs.atari import AtariVecEnv
from envs.errors import UserError
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
@pytest.mark.parametrize("normalize_value", [False, True])
def test_a_compiled_update_equals_the_one_as_it_stands(normalize_value: bool) -> None:
    # One after the other, for each begins by seeding torch.
    options: dict[str, Any] = {"policy_kwargs": {**TINY, **SGD}}
    if normalize_value:
        nature = {"features_dim": 8, "activation": "elu", "input_norm": "running"}
        extractor = {"encoder": "nature", "encoder_options": nature}
        options["policy_kwargs"] = {"features_extractor_kwargs": extractor, **SGD}
        options["normalize_value"] = True
    runs = (make_ppo(**options, compile_update=on).learn(2 * 64) for on in (False, True))
    plain, compiled = runs
    for name, tensor in plain.policy.state_dict().items():
        torch.testing.assert_close(compiled.policy.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)
