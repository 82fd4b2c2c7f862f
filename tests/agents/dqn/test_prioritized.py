"""DQN with prioritised replay: weights of losses, and priorities after each update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.logger import Logger
from support.dqn_agents import make_dqn
from support.pretend_gpu import PretendGPU
from support.toy_envs import Corridor, mean_return

from agents.dqn.agent import DQN
from agents.storage.prioritized import PrioritizedSampler
from agents.storage.replay import FrameReplay
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from envs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
PRIORITIZED: dict[str, Any] = {"prioritized": True, "priority_epsilon": 1e-3}


def sampler_of(model: DQN) -> PrioritizedSampler:
    assert model.replay_buffer is not None
    assert isinstance(model.replay_buffer.sampler, PrioritizedSampler)
    return model.replay_buffer.sampler


def leaves(model: DQN) -> torch.Tensor:
    return sampler_of(model)._tree.leaves


def parameters(model: DQN) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.q_net.parameters()])


def differences(model: DQN, batch: Any) -> torch.Tensor:
    """Temporal differences of a batch."""
    with torch.no_grad():
        values = model.q_net(batch.observations).gather(1, batch.actions[:, None]).squeeze(1)
        following = model.q_net_target(batch.next_observations).amax(1)
    return values - batch.rewards - batch.discounts * following


def test_an_update_weighs_losses_and_sets_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_dqn(learning_starts=10_000, **PRIORITIZED).learn(200)
    replay = model.replay_buffer
    assert replay is not None
    everything = torch.arange(200)
    replay.set_priorities(everything, torch.rand(200, generator=torch.manual_seed(0)))
    before, drawn = leaves(model).clone(), []
    sample = FrameReplay.sample

    def noted(*arguments: Any) -> Any:
        drawn.append(sample(*arguments))
        return drawn[-1]

    monkeypatch.setattr(FrameReplay, "sample", noted)
    losses: list[torch.Tensor] = []
    add_losses = model._add_losses

    def added(new: list[torch.Tensor]) -> None:
        losses.extend(new)
        add_losses(new)

    monkeypatch.setattr(model, "_add_losses", added)
    q_net = [p.detach().clone() for p in model.q_net.parameters()]
    model.train(1, 32)
    trained = list(model.q_net.parameters())
    with torch.no_grad():
        for parameter, value in zip(trained, q_net, strict=True):
            parameter.copy_(value)
    (batch,) = drawn
    errors = differences(model, batch)
    assert batch.weights.unique().numel() > 20
    huber = torch.nn.functional.smooth_l1_loss(errors, torch.zeros(32), reduction="none")
    torch.testing.assert_close(losses[0][0], (batch.weights * huber).mean())
    expected = before.clone()
    expected[batch.places] = (errors.abs().double() + 1e-3) ** 0.6
    torch.testing.assert_close(leaves(model), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("overlap", [False, True])
def test_batches_are_drawn_with_the_priorities_they_should_have(
    overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sample, set_priorities = FrameReplay.sample, FrameReplay.set_priorities

    def sampled(*arguments: Any) -> Any:
        events.append("sample")
        return sample(*arguments)

    def set_(*arguments: Any) -> None:
        events.append("set")
        set_priorities(*arguments)

    monkeypatch.setattr(FrameReplay, "sample", sampled)
    monkeypatch.setattr(FrameReplay, "set_priorities", set_)
    options = {"learning_starts": 0, "train_freq": 8, "gradient_steps": 2}
    make_dqn(overlap=overlap, target_update_interval=1000, **options, **PRIORITIZED).learn(24)
    once = ["sample", "set"] * 2
    beside = ["sample", "sample", "set", "set"]
    assert events == (["sample"] * 2 + beside * 2 + ["set"] * 2 if overlap else once * 3)


@pytest.mark.parametrize("overlap", [False, True])
def test_two_trainings_are_equal_to_the_bit(overlap: bool) -> None:
    options = {"learning_starts": 32, "overlap": overlap, "n_steps": 3, "buffer_size": 160}
    one, other = (make_dqn(**options, **PRIORITIZED).learn(240) for _ in range(2))
    assert torch.equal(parameters(one), parameters(other))
    assert torch.equal(leaves(one), leaves(other))
    assert leaves(one).unique().numel() > 100
    assert one.replay_buffer is not None
    one.replay_buffer.check_valid()


@pytest.mark.parametrize("overlap", [False, True])
def test_a_checkpoint_goes_on_to_the_bit(overlap: bool, tmp_path: Path) -> None:
    options = {"learning_starts": 32, "overlap": overlap, "augment": "drq", **PRIORITIZED}
    model = make_dqn(**options).learn(160)
    save_checkpoint(model, tmp_path)
    copies = []
    for seed in (1, 2):
        copy = make_dqn(**{**options, "seed": seed})
        copy.set_logger(Logger(None, []))
        load_checkpoint(copy, tmp_path)
        assert torch.equal(leaves(copy), leaves(model))
        assert copy.draws.state() == model.draws.state()
        copy.env.seed(0)  # type: ignore[union-attr]
        copies.append(copy.learn(80, reset_num_timesteps=False))
    one, other = copies
    assert torch.equal(parameters(one), parameters(other))
    assert torch.equal(leaves(one), leaves(other))


def test_beta_grows_with_the_run() -> None:
    model = make_dqn(learning_starts=0, **PRIORITIZED).learn(800)
    assert sampler_of(model)._beta.item() == pytest.approx(1.0)
    model.learn(800, callback=lambda values, _: model.num_timesteps < 400)
    assert sampler_of(model)._beta.item() == pytest.approx(0.7)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("replay_device", ["cuda", "cpu"])
def test_on_a_pretend_gpu_it_learns_the_same_captured_or_not(
    overlap: bool, replay_device: str, pretend_gpu: PretendGPU
) -> None:
    models = []
    for graphs in (True, False):
        options: dict[str, Any] = {"learning_rate": 2**-10, "learning_starts": 32}
        options |= {"buffer_size": 128}
        options |= {"device": "cuda", "replay_device": replay_device, "overlap": overlap}
        options |= {"exploration_final_eps": 1.0, "exploration_initial_eps": 1.0}
        models.append(make_dqn(cuda_graphs=graphs, depth=2, **options, **PRIORITIZED).learn(240))
        assert pretend_gpu.replays
    captured, plain = models
    # Storing, sampling, learning, priorities; acting is random.
    assert pretend_gpu.captures == (4 if replay_device == "cuda" else 1)
    # With overlap, captured ones set the priorities of their first rounds earlier.
    if not overlap:
        assert torch.equal(parameters(captured), parameters(plain))
        assert torch.equal(leaves(captured), leaves(plain))
    assert captured._n_updates == plain._n_updates > 20


def test_a_tiny_world_is_solved() -> None:
    options = {"gamma": 0.9, "n_steps": 3, **PRIORITIZED}
    model = make_dqn(Corridor(), **options).learn(1400)
    assert mean_return(model, Corridor(), 1) >= 0.95 * Corridor().best_return


@pytest.mark.parametrize(
    "options, line",
    [
        ({"priority_alpha": -0.1}, "priority_alpha"),
        ({"priority_beta_final": 1.5}, "priority_beta_final"),
        ({"priority_uniform_share": float("nan")}, "priority_uniform_share"),
        ({"priority_epsilon": -1.0}, "priority_epsilon"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], line: str) -> None:
    with pytest.raises(UserError, match=f"^{line} "):
        make_dqn(prioritized=True, **options)


def test_a_replay_without_priorities_is_refused() -> None:
    model, uniform = make_dqn(**PRIORITIZED), make_dqn()
    model.replay_buffer = uniform.setup_replay()
    with pytest.raises(UserError, match=r"^the replay lacks priorities"):
        model.learn(8)
