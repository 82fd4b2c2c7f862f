"""What published recipes of PPO add: normalised values, an adaptive rate, normalised pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from support.ppo_agents import TINY, make_ppo
from support.pretend_gpu import PretendGPU

from agents.ppo.adaptive_rate import adapted_rate
from agents.ppo.agent import PPO
from agents.ppo.config import PPOConfig
from agents.ppo.objective import METRICS
from agents.registry import algorithm_of
from agents.train.callbacks import UpdateLog
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from envs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

NATURE: dict[str, Any] = {
    "features_extractor_kwargs": {
        "encoder": "nature",
        "encoder_options": {"features_dim": 8, "activation": "elu", "input_norm": "running"},
    }
}
RECIPE: dict[str, Any] = {
    "normalize_value": True,
    "kl_threshold": 0.01,
    "adam_eps": 1e-8,
    "learning_rate": 3e-4,
    "policy_kwargs": NATURE,
}
ROLLOUT = 8 * 8


def collected(**options: Any) -> PPO:
    """An agent with a rollout to learn from, whose returns are 30 and more."""
    model = make_ppo(normalize_value=True, **options)
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(ROLLOUT)
    env = model.check_env_is_set()
    assert model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps)
    generator = torch.Generator().manual_seed(0)
    rollout = model.rollout_buffer
    rollout.returns.copy_(30 + torch.randn(rollout.returns.shape, generator=generator))
    # An outlier, which is cut off.
    rollout.returns[3, 3] = 90
    rollout.values += torch.randn(rollout.values.shape, generator=generator)
    return model


def state_of(model: PPO) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def assert_same(one: PPO, other: PPO) -> None:
    theirs = state_of(other)
    assert all(torch.equal(value, theirs[name]) for name, value in state_of(one).items())
    assert one.adapted_rate == other.adapted_rate


# -- normalised values -----------------------------------------------------------------------------


@pytest.mark.parametrize("clip_range_vf", [None, 0.2])
def test_the_value_loss_is_that_of_normalised_returns(clip_range_vf: float | None) -> None:
    model = collected(clip_range_vf=clip_range_vf, vf_coef=1.5)
    rollout = model.rollout_buffer
    learner = model._prepare_learner()
    learner.take_returns(rollout)
    moments = model.policy.return_moments
    assert moments is not None

    # In float64: the start counts as one value of mean 0 and variance 1.
    returns = rollout.returns.double().numpy().ravel()
    count = len(returns) + 1
    mean = returns.sum() / count
    variance = (1 + np.square(returns).sum()) / count - mean**2
    deviation = np.sqrt(variance + 1e-5)
    assert float(moments.mean) == pytest.approx(mean, rel=1e-12)
    assert float(moments.variance) == pytest.approx(variance, rel=1e-12)

    batch = rollout.batch(torch.arange(ROLLOUT))
    policy = model.policy
    with torch.no_grad():
        features = policy.extract_features(batch.observations)
        latent = policy.mlp_extractor(features)[1].double()
        head = policy.value_net.double()(latent).ravel()
        policy.value_net.float()
        values = policy.predict_values(batch.observations).double().ravel()
    # Values are in units of return; the head's are in deviations.
    torch.testing.assert_close(values, head * deviation + mean, rtol=1e-5, atol=1e-5)
    head.requires_grad_()
    targets = torch.as_tensor(((returns - mean) / deviation).clip(-5, 5))
    assert targets.max() == 5
    predicted = head
    if clip_range_vf is not None:
        old = (batch.old_values.double() - mean) / deviation
        predicted = old + (head - old).clamp(-clip_range_vf, clip_range_vf)
    expected = (predicted - targets).square().mean()
    (1.5 * expected).backward()

    loss, metrics = learner.loss(batch)
    assert metrics[METRICS.index("value_loss")].item() == pytest.approx(expected.item(), rel=1e-4)
    policy.optimizer.zero_grad()
    loss.backward()
    assert head.grad is not None
    bias = policy.value_net.bias.grad
    assert bias is not None
    assert bias.item() == pytest.approx(head.grad.sum().item(), rel=1e-3, abs=1e-6)


def test_advantages_and_explained_variance_are_in_units_of_return() -> None:
    model = make_ppo(normalize_value=True)
    moments = model.policy.return_moments
    assert moments is not None
    moments.merge(torch.tensor(40.0), torch.tensor(9.0), 10**6)

    class Compare(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            rollout = model.rollout_buffer
            assert rollout.values.mean().item() == pytest.approx(40, abs=5)
            torch.testing.assert_close(rollout.returns, rollout.advantages + rollout.values)
            batch = rollout.batch(torch.arange(ROLLOUT))
            with torch.no_grad():
                values = model.policy.evaluate_actions(batch.observations, batch.actions)[0]
            torch.testing.assert_close(batch.old_values, values.flatten())
            scores = algorithm_of(model).action_scores(model, batch.observations)
            torch.testing.assert_close(scores.values.detach(), values.flatten())

    model.learn(ROLLOUT, callback=Compare())
    rollout = model.rollout_buffer
    returns = rollout.returns
    unexplained = (returns - rollout.values).var() / returns.var()
    logged = model.logger.name_to_value["train/explained_variance"]
    assert logged == pytest.approx(1 - unexplained.item(), rel=1e-4, abs=1e-4)


def test_without_it_a_policy_is_as_it_was() -> None:
    assert make_ppo().policy.return_moments is None
    assert not any("moments" in name for name in make_ppo().policy.state_dict())


# -- the adaptive rate -----------------------------------------------------------------------------


def updates_of(model: PPO, steps: int) -> list[tuple[float, float]]:
    """The learning rate and the divergence of every update."""
    rows: list[tuple[float, float]] = []
    record = model._record_update

    def note(report: Any) -> dict[str, float]:
        figures = record(report)
        rates = {group["lr"] for group in model.policy.optimizer.param_groups}
        rows.append((float(rates.pop()), figures["approx_kl"]))
        return figures

    model._record_update = note  # type: ignore[method-assign]
    model.learn(steps, callback=UpdateLog())
    return rows


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("threshold", [1e-5, 0.5])
def test_the_rate_follows_the_divergence(overlap: bool, threshold: float) -> None:
    model = make_ppo(kl_threshold=threshold, learning_rate=4e-3, overlap=overlap)
    rows = updates_of(model, 8 * ROLLOUT)
    assert len(rows) == 8
    rate = 4e-3
    for used, kl in rows:
        assert used == rate
        if kl > 2 * threshold:
            rate = max(rate / 1.5, 1e-6)
        if kl < threshold / 2:
            rate = min(rate * 1.5, 1e-2)
    assert model.adapted_rate == rate
    assert rate == 1e-2 if threshold == 0.5 else rate < 1e-3


@pytest.mark.parametrize(
    ("rate", "kl", "expected"),
    [
        (3e-4, 0.0201, 2e-4),
        (3e-4, 0.02, 3e-4),
        (3e-4, 0.005, 3e-4),
        (3e-4, 0.0049, 4.5e-4),
        (1.2e-6, 1.0, 1e-6),
        (9e-3, 0.0, 1e-2),
        (3e-4, float("inf"), 2e-4),
    ],
)
def test_the_rule_of_the_rate(rate: float, kl: float, expected: float) -> None:
    assert adapted_rate(rate, kl, 0.01) == pytest.approx(expected)


# -- normalised pixels -----------------------------------------------------------------------------


def test_pixels_are_normalised_by_the_frames_of_past_rollouts() -> None:
    model = make_ppo(policy_kwargs=NATURE, depth=2)
    frames: list[torch.Tensor] = []

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            rollout = model.rollout_buffer
            frames.append(rollout.newest_frames.clone())
            # The policy still sees what it acted on: all probabilities are as they were.
            batch = rollout.batch(torch.arange(ROLLOUT))
            with torch.no_grad():
                log_probs = model.policy.evaluate_actions(batch.observations, batch.actions)[1]
            torch.testing.assert_close(log_probs, batch.old_log_prob, rtol=0, atol=1e-5)

    model.learn(2 * ROLLOUT, callback=Note())
    moments = model.policy.features_extractor.encoder.preprocessing.moments  # type: ignore[union-attr]
    assert moments.count == 1 + 2 * ROLLOUT  # type: ignore[union-attr]
    seen = torch.cat(frames).double() / 255
    mean = (seen.sum(dim=0) / (len(seen) + 1)).repeat(2, 1, 1)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-9, atol=1e-12)  # type: ignore[union-attr]


def test_a_rollout_is_learned_from_as_it_was_seen() -> None:
    # One step from the policy that acted: it still is that policy when its ratios are computed.
    model = make_ppo(policy_kwargs=NATURE, n_epochs=1, batch_size=ROLLOUT)
    for updates in (1, 2, 3):
        model.learn(ROLLOUT, reset_num_timesteps=updates == 1)
        assert model._n_updates == updates
        assert model.logger.name_to_value["train/approx_kl"] == pytest.approx(0, abs=1e-9)


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_update_is_the_same_with_overlap(precision: str) -> None:
    options = {**RECIPE, "policy_kwargs": {**NATURE, "precision": precision}}
    plain, overlapped = (make_ppo(overlap=on, **options).learn(ROLLOUT) for on in (False, True))
    assert_same(plain, overlapped)


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_nothing_waits_for_the_device_but_what_did_before(
    cuda_graphs: bool, pretend_gpu: PretendGPU
) -> None:
    def waits(**options: Any) -> int:
        model = make_ppo(device="cuda", cuda_graphs=cuda_graphs, **options)
        before = pretend_gpu.waits
        model.learn(3 * ROLLOUT)
        assert model.adapted_rate != options.get("learning_rate")
        return pretend_gpu.waits - before

    recipe = {**RECIPE, "kl_threshold": 1e-30}
    # Twice as many minibatches wait as often.
    assert waits(**recipe) == waits(**recipe, n_epochs=4) == waits(policy_kwargs=NATURE)


def test_captured_updates_equal_uncaptured_ones(pretend_gpu: PretendGPU) -> None:
    # A rate that stays the same number in float32, in which a graph reads it.
    recipe = {**RECIPE, "learning_rate": 2**-10, "kl_threshold": None}
    models = [make_ppo(device="cuda", cuda_graphs=on, **recipe) for on in (True, False)]
    for model in models:
        model.set_random_seed(0)
        model.learn(4 * ROLLOUT)
    assert_same(*models)
    assert pretend_gpu.replays


def test_checkpoints_and_zips_hold_their_state(tmp_path: Path) -> None:
    model = make_ppo(**RECIPE).learn(3 * ROLLOUT)
    assert model.adapted_rate != 3e-4
    save_checkpoint(model, tmp_path)
    resumed = make_ppo(**RECIPE)
    resumed.set_logger(Logger(None, []))
    load_checkpoint(resumed, tmp_path)
    assert_same(model, resumed)
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", device="cpu")
    assert_same(model, loaded)
    assert (loaded.kl_threshold, loaded.normalize_value) == (0.01, True)
    observations = model.check_env_is_set().reset()
    for other in (resumed, loaded):
        ours, theirs = (m.predict(observations, deterministic=True)[0] for m in (model, other))
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kl_threshold": 0.0}, "kl_threshold must be a positive number, not 0.0"),
        ({"kl_threshold": True}, "kl_threshold must be a positive number, not True"),
        (
            {"kl_threshold": 0.01, "learning_rate": lambda left: 1e-3 * left},
            "kl_threshold adapts the learning rate: learning_rate must be a number",
        ),
        (
            {"kl_threshold": 0.01, "learning_rate": 0.1},
            "learning_rate 0.1 cannot be adapted by kl_threshold: expected 1e-06 to 0.01",
        ),
        (
            {"policy_kwargs": {**TINY, "normalize_value": True}},
            "policy_kwargs must not have normalize_value: it is an argument of PPO itself",
        ),
        (
            {"adam_eps": 1e-8, "policy_kwargs": {**TINY, "optimizer_kwargs": {"eps": 1e-4}}},
            "adam_eps 1e-08 is for the default optimizer: put eps into optimizer_kwargs instead",
        ),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as refusal:
        make_ppo(**options)
    assert str(refusal.value) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"learning_rate_schedule": "adaptive"}, "adaptive needs --ppo.kl-threshold, such as 0.01"),
        ({"kl_threshold": 0.02}, "--ppo.kl-threshold 0.02 is for --ppo.learning-rate-schedule"),
        (
            {"learning_rate_schedule": "adaptive", "kl_threshold": 0.01, "learning_rate": 0.0},
            "--ppo.learning-rate 0 cannot be adaptive: expected 1e-06 to 0.01",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        PPOConfig(**options).check_together()


def test_options_are_the_agents_arguments() -> None:
    config = PPOConfig(
        learning_rate_schedule="adaptive", kl_threshold=0.02, normalize_value=True, adam_eps=1e-8
    )
    config.check_together()
    assert not config.in_baseline
    arguments = config.to_arguments()
    model = make_ppo(**{**arguments, "n_steps": 8, "batch_size": 32})
    assert (model.adapted_rate, model.kl_threshold) == (2.5e-4, 0.02)
    assert model.policy.return_moments is not None
    assert model.policy.optimizer.param_groups[0]["eps"] == 1e-8
    assert model.policy.optimizer.defaults["fused"]
    PPOConfig().check_together()
    assert PPOConfig().in_baseline
