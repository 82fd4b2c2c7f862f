"""PQN: its returns, its update, its face, and learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from support.callback_events import Recorder
from support.ppo_agents import StopAt
from support.pqn_agents import TINY, make_pqn
from support.toy_envs import Clock, Columns, Corridor, WorldVecEnv, mean_return

from agents.pqn.agent import PQN
from agents.pqn.objective import q_lambda_loss
from agents.storage.codecs import PixelCodec
from agents.storage.rollout import FrameRollout, RolloutBatch
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from envs.errors import UserError
from envs.groups import GroupedVecEnv
from envs.stacking import FrameStacking
from rlcnn.sb3 import EncoderExtractor

# -- returns ---------------------------------------------------------------------------------------

STEPS, ENVS, GAMMA = 9, 4, 0.9


def loop_returns(
    rewards: np.ndarray, ends: np.ndarray, values: np.ndarray, q_lambda: float
) -> np.ndarray:
    """Lambda returns in float64; ``values`` has a row more, of what follows the last step."""
    returns = np.zeros(rewards.shape)
    following = values[-1]
    for step in reversed(range(len(rewards))):
        mixed = q_lambda * following + (1 - q_lambda) * values[step + 1]
        returns[step] = rewards[step] + GAMMA * (1 - ends[step]) * mixed
        following = returns[step]
    return returns


@pytest.mark.parametrize("q_lambda", [0.0, 0.65, 1.0])
def test_lambda_returns_equal_a_loop(q_lambda: float) -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(STEPS, ENVS)), rng.normal(size=(STEPS + 1, ENVS))
    ends = rng.random((STEPS, ENVS)) < 0.3
    # The reward of a step that a time limit cut off holds the value of what would have followed.
    cut = ends & (rng.random((STEPS, ENVS)) < 0.5)
    rewards += cut * GAMMA * rng.normal(size=(STEPS, ENVS))
    codec = PixelCodec(FrameStacking(1, 1), (1, 2, 2))
    rollout = FrameRollout(STEPS, ENVS, codec, gae_lambda=q_lambda, gamma=GAMMA)
    rollout.rewards.copy_(torch.as_tensor(rewards))
    rollout.values.copy_(torch.as_tensor(values[:-1]))
    rollout.episode_starts[1:].copy_(torch.as_tensor(ends[:-1]))
    rollout.compute_returns_and_advantage(torch.as_tensor(values[-1]).float(), ends[-1])
    expected = torch.as_tensor(loop_returns(rewards, ends, values, q_lambda)).float()
    torch.testing.assert_close(rollout.returns, expected, rtol=1e-5, atol=1e-5)
    if q_lambda == 0:
        one_step = rewards + GAMMA * ~ends * values[1:]
        torch.testing.assert_close(rollout.returns, torch.as_tensor(one_step).float())
    if q_lambda == 1:
        # No value is used before an end or the end of the rollout.
        rollout.values.normal_()
        rollout.compute_returns_and_advantage(torch.as_tensor(values[-1]).float(), ends[-1])
        torch.testing.assert_close(rollout.returns, expected, rtol=1e-4, atol=1e-4)


def test_a_rollout_holds_the_greatest_values_and_bootstraps_at_a_time_limit() -> None:
    model = make_pqn(Clock(), n_envs=2, n_steps=6, batch_size=12, gamma=0.5, q_lambda=0.0)

    class Compare(BaseCallback):
        compared = 0

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            rollout = model.rollout_buffer
            with torch.no_grad():
                q_values = model.policy.q_net(rollout.observations(torch.arange(12)))
            values = q_values.amax(dim=1).view(6, 2)
            torch.testing.assert_close(rollout.values, values, rtol=1e-4, atol=1e-5)
            # Every state looks alike and every third step is cut off: all bootstrap alike.
            expected = torch.full_like(values, 1 + 0.5 * values[0, 0].item())
            torch.testing.assert_close(rollout.returns, expected, rtol=1e-4, atol=1e-4)
            self.compared += 1

    compare = Compare()
    model.learn(24, callback=compare)
    assert compare.compared == 2


# -- updates ---------------------------------------------------------------------------------------


def test_one_update_equals_plain_torchs() -> None:
    model = make_pqn(n_steps=8, batch_size=64, n_epochs=1, learning_rate=0.01, max_grad_norm=0.1)
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(64)
    assert model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, 8)
    rollout, q_net = model.rollout_buffer, model.policy.q_net
    encoder: Any = q_net.features_extractor.encoder
    names = [name for name, _ in q_net.named_parameters()]
    before = [p.detach().clone().requires_grad_() for p in q_net.parameters()]

    observations, actions = rollout.observations(torch.arange(64)), rollout.actions.flatten()
    tensors = dict(zip(names, before, strict=True))
    q_values = torch.func.functional_call(q_net, tensors, (observations,))
    chosen = q_values[torch.arange(64), actions]
    loss = ((chosen - rollout.returns.flatten()) ** 2).sum() / (2 * 64)
    loss.backward()
    optimizer = torch.optim.RAdam(before, lr=0.01)
    norm = torch.nn.utils.clip_grad_norm_(before, 0.1)
    optimizer.step()

    model.train()
    logged = model.logger.name_to_value
    assert isinstance(model.policy.optimizer, torch.optim.RAdam)
    assert encoder.options["norm"] == "layer_channels"
    assert logged["train/loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert logged["train/q_value"] == pytest.approx(chosen.mean().item(), rel=1e-3)
    assert logged["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
    assert norm > 0.1
    for ours, plain in zip(q_net.parameters(), before, strict=True):
        assert ours.grad is not None
        assert plain.grad is not None
        scale = plain.grad.abs().max().item()
        torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-3 * scale + 1e-8)


def test_the_loss_is_half_the_squared_distance_from_the_returns() -> None:
    q_values = torch.tensor([[1.0, 5.0], [2.0, 0.0]], requires_grad=True)
    zeros = torch.zeros(2)
    batch = RolloutBatch(zeros, torch.tensor([1, 0]), zeros, zeros, zeros, torch.tensor([2.0, 3.0]))
    loss, metrics = q_lambda_loss(lambda _: q_values, batch)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (9 + 1) / 2)
    assert metrics.tolist() == pytest.approx([2.5, 3.5])
    assert q_values.grad is not None
    # The derivative is the distance, of the chosen actions alone.
    assert q_values.grad.flatten().tolist() == pytest.approx([0, 1.5, -0.5, 0])


# -- exploration -----------------------------------------------------------------------------------


def test_every_environment_flips_its_own_coin_and_epsilon_falls_between_rollouts() -> None:
    rates: list[float] = []
    shares: list[float] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            rollout = model.rollout_buffer
            with torch.no_grad():
                q_values = model.policy.q_net(rollout.observations(torch.arange(256)))
            other = rollout.actions != q_values.argmax(dim=1).view(32, 8)
            rates.append(model.exploration_rate)
            shares.append(other.float().mean().item())
            # Not all environments at once.
            assert not (other.all(dim=1) | ~other.any(dim=1)).all() or model.exploration_rate < 0.1

    schedule = {"exploration_fraction": 0.5, "exploration_final_eps": 0.0}
    model = make_pqn(n_steps=32, batch_size=256, n_epochs=1, **schedule)
    model.learn(4 * 256, callback=Watch())
    assert rates == pytest.approx([1, 0.5, 0, 0])
    # A random action is the greedy one in a quarter of the cases.
    assert shares == pytest.approx([0.75, 0.375, 0, 0], abs=0.1)


def test_predict_is_greedy_or_explores() -> None:
    model, seen = make_pqn(n_envs=8), WorldVecEnv(Columns(), 8).reset()
    greedy, _ = model.predict(np.repeat(seen, 20, axis=0), deterministic=True)
    model.exploration_rate = 1.0
    explored, _ = model.predict(np.repeat(seen, 20, axis=0))
    assert (model.predict(np.repeat(seen, 20, axis=0), deterministic=True)[0] == greedy).all()
    assert 0.5 < (explored != greedy).mean() < 0.95


# -- the face --------------------------------------------------------------------------------------


def test_callbacks_fire_where_stable_baselines3s_ppo_fires_them() -> None:
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
    for model in (make_pqn(n_envs=2, batch_size=16), theirs):
        model.set_logger(Logger(None, []))
        recorder = Recorder()
        model.learn(40, callback=recorder)
        model.learn(16, callback=recorder, reset_num_timesteps=False)
        records.append(recorder.events)
    assert records[0] == records[1]


def parameters(model: PQN) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


def test_steps_never_learned_from_are_not_counted() -> None:
    model = make_pqn().learn(1000, callback=StopAt(64 * 2 + 24))
    assert model.num_timesteps == 64 * 2
    assert model.learn(64, reset_num_timesteps=False).num_timesteps == 64 * 3


def test_two_trainings_of_one_seed_are_equal_to_the_bit() -> None:
    first, second, other = (parameters(make_pqn(seed=seed).learn(192)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_saved_agent_acts_and_goes_on(tmp_path: Path) -> None:
    model = make_pqn(policy_kwargs={**TINY, "precision": "bf16"}).learn(64)
    model.save(tmp_path / "agent.zip")
    loaded = PQN.load(tmp_path / "agent.zip", env=WorldVecEnv(Columns(), 8), device="cpu")
    assert (loaded.q_lambda, loaded.exploration_final_eps) == (0.65, 0.001)
    assert torch.equal(parameters(loaded), parameters(model))
    assert loaded.policy.optimizer.state_dict()["state"][0]["step"] == 4
    assert loaded.learn(64, reset_num_timesteps=False).num_timesteps == 128


def test_a_checkpoint_goes_on_exactly(tmp_path: Path) -> None:
    """The same steps of the same environments are learned from after a checkpoint as without."""

    def second_half(model: PQN) -> torch.Tensor:
        model.get_env().seed(9)
        model._last_obs = None
        return parameters(model.learn(128, reset_num_timesteps=False))

    schedule = {"exploration_fraction": 1.0, "exploration_final_eps": 0.1}
    model = make_pqn(**schedule)
    model.set_logger(Logger(None, []))
    model.learn(128)
    save_checkpoint(model, tmp_path)
    rate = model.exploration_rate
    expected = second_half(model)
    resumed = make_pqn(**schedule, seed=5)
    resumed.set_logger(Logger(None, []))
    load_checkpoint(resumed, tmp_path)
    assert resumed.exploration_limit == rate
    assert torch.equal(second_half(resumed), expected)


def test_pretrained_encoders_and_their_saved_agents_are_without_layer_norm(tmp_path: Path) -> None:
    from rlcnn.encoders import create_encoder
    from rlcnn.weights.load import save_encoder

    path = tmp_path / "encoder.safetensors"
    save_encoder(create_encoder("nature", (1, 36, 36), features_dim=32), path)
    extractor = {**TINY["features_extractor_kwargs"], "weights": path}
    model = make_pqn(policy_kwargs={"features_extractor_kwargs": extractor})
    model.save(tmp_path / "agent.zip")
    path.unlink()
    loaded = PQN.load(tmp_path / "agent.zip", device="cpu")
    assert torch.equal(parameters(loaded), parameters(model))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 48}, "batch_size 48 does not divide the rollout of 64 steps"),
        ({"n_epochs": 0}, "n_epochs must be at least 1, not 0"),
        ({"n_steps": 1.5}, "n_steps must be a whole number, not 1.5"),
        ({"policy_kwargs": {"share_features_extractor": True}}, "only PPO's policy has it"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_pqn(**options)


# -- learning --------------------------------------------------------------------------------------

LEARNING: dict[str, Any] = {
    "n_steps": 16,
    "learning_rate": 1e-3,
    "exploration_fraction": 0.5,
    "exploration_final_eps": 0.05,
}


def test_it_learns_to_pass_by_a_small_reward_for_a_great_one() -> None:
    world = Corridor()
    model = make_pqn(world, gamma=0.95, **LEARNING).learn(3_072)
    assert mean_return(model, world) == world.best_return


@pytest.mark.slow
@pytest.mark.parametrize("way", ["groups", "overlap"])
def test_it_learns_what_is_seen_only_in_an_older_frame(way: str) -> None:
    world = Columns(delay=1)
    env: Any = WorldVecEnv(world, 8, 2)
    if way == "groups":
        env = GroupedVecEnv([WorldVecEnv(world, 4, 2), WorldVecEnv(world, 4, 2)])
    model = make_pqn(env=env, gamma=0.5, overlap=way == "overlap", **LEARNING).learn(6_144)
    assert mean_return(model, world, depth=2) > 0.9 * world.best_return


def test_pixels_are_normalised_by_the_frames_of_past_rollouts() -> None:
    options = {"features_dim": 8, "input_norm": "running"}
    extractor = {"encoder": "nature", "encoder_options": options}
    model = make_pqn(
        n_steps=8, batch_size=64, policy_kwargs={"features_extractor_kwargs": extractor}
    )
    model.learn(2 * 64)
    encoder: Any = model.policy.q_net.features_extractor.encoder
    assert encoder.preprocessing.moments.count == 1 + 2 * 64
