"""DQN that collects the next steps during its updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from support.toy_envs import Columns, WorldVecEnv, mean_return

from agents.dqn.agent import DQN
from envs.errors import UserError

# With overlap both sides take fewer threads, which round otherwise.
pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"features_extractor_kwargs": {"encoder": "nature", "encoder_options": {"features_dim": 32}}}


def make_dqn(overlap: bool, n_envs: int = 8, **options: Any) -> DQN:
    settings: dict[str, Any] = {
        "learning_rate": 1e-3,
        "buffer_size": 5000,
        "learning_starts": 64,
        "target_update_interval": 40,
        "exploration_fraction": 0.5,
        "policy_kwargs": TINY,
        "seed": 0,
        "device": "cpu",
        **options,
    }
    return DQN("CnnPolicy", WorldVecEnv(Columns(), n_envs, 1), overlap=overlap, **settings)


def parameters(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


def note_losses(model: DQN) -> list[list[float]]:
    """The loss and gradient norm of all updates, in the order in which they are counted."""
    losses: list[list[float]] = []
    note = model._add_losses

    def noted(new: list[torch.Tensor]) -> None:
        losses.extend(loss.tolist() for loss in new)
        note(new)

    model._add_losses = noted  # type: ignore[method-assign]
    return losses


@pytest.mark.parametrize(
    "precision, n_envs, updates",
    [
        ("fp32", 1, 1),
        ("fp32", 8, 1),
        ("fp32", 8, -1),
        ("bf16", 8, 1),
        pytest.param("bf16", 1, 1, marks=pytest.mark.slow),
        pytest.param("bf16", 8, -1, marks=pytest.mark.slow),
    ],
)
def test_of_the_same_steps_it_learns_the_same_to_the_bit(
    precision: str, n_envs: int, updates: int
) -> None:
    trained = []
    for overlap in (False, True):
        # Actions by chance alone: which network is older has no say in them.
        model = make_dqn(
            overlap,
            n_envs,
            gradient_steps=updates,
            exploration_final_eps=1.0,
            policy_kwargs={**TINY, "precision": precision},
        )
        losses = note_losses(model)
        trained.append((model.learn(160 if updates == 1 else 112), losses))
    (plain, expected), (overlapped, losses) = trained
    assert plain._n_updates == overlapped._n_updates > 20
    assert torch.equal(parameters(plain.policy), parameters(overlapped.policy))
    assert losses == expected
    assert len(losses) == plain._n_updates


def test_actions_come_from_a_network_one_update_older() -> None:
    acted_by: list[torch.Tensor] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % 4 == 1:
                acted_by.append(parameters(model._acting_copy.network))
            return True

    model = make_dqn(True, n_envs=1, learning_starts=8)
    learned = [parameters(model.q_net)]
    note = model._add_losses

    def noted(losses: list[torch.Tensor]) -> None:
        note(losses)
        learned.append(parameters(model.q_net))

    model._add_losses = noted  # type: ignore[method-assign]
    model.learn(28, callback=Watch())
    # Updates follow the steps 12, 16, 20, 24 and 28: the first has the steps 13 to 16 beside it.
    assert len(learned) == 6
    assert len(acted_by) == 7
    for weights, expected in zip(acted_by, [0, 0, 0, 0, 1, 2, 3], strict=True):
        assert torch.equal(weights, learned[expected])


def test_who_waits_for_the_update_has_it_acted_by() -> None:
    class Wait(BaseCallback):
        def _on_rollout_start(self) -> None:
            model.finish_update()
            assert not model.q_net.training

        def _on_step(self) -> bool:
            return True

    model = make_dqn(True)
    model.learn(160, callback=Wait())
    plain = make_dqn(False).learn(160)
    # With nothing left to overlap it is the same training.
    assert torch.equal(parameters(plain.policy), parameters(model.policy))


def test_two_trainings_are_equal_to_the_bit() -> None:
    trained = [make_dqn(True).learn(240) for _ in range(2)]
    assert torch.equal(*(parameters(model.policy) for model in trained))


@pytest.mark.parametrize("ask", ["predict", "save", "check_finite"])
def test_the_update_is_waited_for_by_what_looks_at_the_network(ask: str, tmp_path: Path) -> None:
    class Ask(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 80:
                assert model._runner.busy
                if ask == "predict":
                    model.predict(np.asarray(model._last_obs))
                elif ask == "save":
                    model.save(tmp_path / "model.zip")
                else:
                    model.check_finite()
                assert not model._runner.busy
                assert model._n_updates == 2
            return True

    model = make_dqn(True)
    model.learn(80, callback=Ask())
    if ask == "save":
        loaded = DQN.load(tmp_path / "model.zip", device="cpu")
        assert loaded.overlap
        assert loaded._n_updates == 2


def test_a_loss_that_is_no_number_stops_training() -> None:
    model = make_dqn(True, learning_rate=1e30)
    with pytest.raises(UserError, match="the loss became nan"):
        model.learn(400)
    assert not model._runner.busy


def test_threads_are_given_back() -> None:
    torch.set_num_threads(2)
    make_dqn(True).learn(80)
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_it_solves_a_tiny_world() -> None:
    options: dict[str, Any] = {"learning_starts": 200, "target_update_interval": 200}
    model = make_dqn(True, **options).learn(1_200)
    world = Columns()
    assert mean_return(model, world, 1) >= 0.95 * world.best_return
