"""PPO that collects the next rollout during an update."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from support.toy_envs import Columns, WorldVecEnv, mean_return

from agents.ppo.agent import PPO
from agents.ppo.learner import PPOLearner
from agents.train.callbacks import UpdateLog
from envs.errors import UserError

# With overlap both sides take fewer threads, which round otherwise.
pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"features_extractor_kwargs": {"encoder": "lenet", "encoder_options": {"features_dim": 32}}}
ROLLOUT = 8 * 8


def make_ppo(overlap: bool, depth: int = 1, delay: int = 0, **options: Any) -> PPO:
    settings: dict[str, Any] = {
        "n_steps": 8,
        "batch_size": 32,
        "n_epochs": 2,
        "learning_rate": 1e-3,
        "policy_kwargs": TINY,
        "seed": 0,
        "device": "cpu",
        **options,
    }
    return PPO("CnnPolicy", WorldVecEnv(Columns(delay), 8, depth), overlap=overlap, **settings)


def parameters(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def learn_and_log(model: PPO, steps: int) -> list[tuple[int, dict[str, Any]]]:
    """The logged metrics of updates, and their steps."""
    rows: list[tuple[int, dict[str, Any]]] = []

    class Rows(KVWriter):
        def write(self, values: dict[str, Any], excluded: Any, step: int = 0) -> None:
            metrics = {name: value for name, value in values.items() if name.startswith("train/")}
            if metrics:
                rows.append((step, metrics))

    model.set_logger(Logger(None, [Rows()]))
    model.learn(steps, callback=UpdateLog())
    return rows


class Watch(BaseCallback):
    """Records what was learned by each rollout's start, and what acts at its first step."""

    def __init__(self, wait: bool) -> None:
        super().__init__()
        self.wait = wait
        self.learned: list[torch.Tensor] = []
        self.acted_by: list[torch.Tensor] = []

    def _on_rollout_start(self) -> None:
        if self.wait:
            self.model.finish_update()  # type: ignore[attr-defined]
            assert not self.model.policy.training
            self.learned.append(parameters(self.model.policy))

    def _on_step(self) -> bool:
        if self.model.num_timesteps % ROLLOUT == 8:
            self.acted_by.append(parameters(self.model._acting_copy.network))
        return True

    def _on_rollout_end(self) -> None:
        # What is stored beside actions is of the very policy that took them.
        acting = self.model._acting_copy.network
        batch = self.model.rollout_buffer.batch(torch.arange(ROLLOUT))  # type: ignore[attr-defined]
        with torch.no_grad():
            values, log_probs, _ = acting.evaluate_actions(batch.observations, batch.actions)
        torch.testing.assert_close(batch.old_values, values.flatten(), rtol=0, atol=1e-6)
        torch.testing.assert_close(batch.old_log_prob, log_probs, rtol=0, atol=1e-6)


def test_the_first_update_is_that_of_a_training_without_overlap() -> None:
    # One after the other, for each begins by seeding torch.
    trained = []
    for overlap in (False, True):
        model = make_ppo(overlap)
        trained.append((learn_and_log(model, ROLLOUT), model._n_updates, parameters(model.policy)))
    (logged, n_updates, plain), (logged_too, n_updates_too, overlapped) = trained
    assert torch.equal(plain, overlapped)
    assert n_updates == n_updates_too == 2
    assert logged == logged_too


def test_actions_come_from_a_policy_one_update_older() -> None:
    watch = Watch(wait=False)
    model = make_ppo(True)
    policies = [parameters(model.policy)]
    finish = model._record_update

    def note(report: Any) -> None:
        finish(report)
        policies.append(parameters(model.policy))

    model._record_update = note  # type: ignore[method-assign]
    model.learn(5 * ROLLOUT, callback=watch)
    assert len(watch.acted_by) == 5
    assert len(policies) == 6
    # The first update has nothing to overlap with but the second rollout.
    for acted_by, expected in zip(watch.acted_by, [0, 0, 1, 2, 3], strict=True):
        assert torch.equal(acted_by, policies[expected])


def test_who_waits_for_the_update_sees_it_and_has_it_acted_by() -> None:
    watch = Watch(wait=True)
    model = make_ppo(True)
    model.learn(4 * ROLLOUT, callback=watch)
    assert all(torch.equal(a, b) for a, b in zip(watch.acted_by, watch.learned, strict=True))
    plain = make_ppo(False)
    plain.learn(4 * ROLLOUT)
    # With nothing left to overlap it is the same training.
    assert torch.equal(parameters(plain.policy), parameters(model.policy))


def test_two_trainings_are_equal_to_the_bit() -> None:
    trained = [make_ppo(True).learn(6 * ROLLOUT) for _ in range(2)]
    assert torch.equal(*(parameters(model.policy) for model in trained))


@pytest.mark.parametrize("ask", ["predict", "save", "check_finite"])
def test_the_update_is_waited_for_by_what_looks_at_the_policy(ask: str, tmp_path: Path) -> None:
    class Ask(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == ROLLOUT + 16:
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

    model = make_ppo(True)
    model.learn(2 * ROLLOUT, callback=Ask())
    if ask == "save":
        assert PPO.load(tmp_path / "model.zip", device="cpu")._n_updates == 2


@pytest.mark.parametrize("overlap", [False, True])
def test_each_update_is_logged_once_under_the_step_it_learned_up_to(overlap: bool) -> None:
    model = make_ppo(overlap, learning_rate=lambda left: 1e-3 * left)
    rows = learn_and_log(model, 4 * ROLLOUT)
    assert [(step, row["train/n_updates"]) for step, row in rows] == [
        (n * ROLLOUT, 2 * n) for n in range(1, 5)
    ]
    # The rate that this very update learned at.
    for n, (_, row) in enumerate(rows, start=1):
        assert row["train/learning_rate"] == pytest.approx(1e-3 * (1 - n / 4), abs=1e-12)


def test_what_an_update_raises_reaches_the_training() -> None:
    model = make_ppo(True)
    with torch.no_grad():
        model.policy.value_net.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="the loss became nan"):
        model.learn(3 * ROLLOUT)
    assert not model._runner.busy


def test_ctrl_c_while_an_update_is_awaited_leaves_no_update_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In the foreground of a shell Python has this handler; in its background Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    model = make_ppo(True)
    pressed: list[int] = []
    learn = PPOLearner.learn

    def press(self: PPOLearner, *args: Any) -> torch.Tensor:
        if not pressed:
            # When the rollout beside it is over and nothing is left to do but wait.
            assert model._runner._caller_waits.wait(60)
            pressed.append(model.num_timesteps)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return learn(self, *args)

    monkeypatch.setattr(PPOLearner, "learn", press)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.learn(4 * ROLLOUT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [2 * ROLLOUT]
    assert not model._runner.busy
    assert model._n_updates == 2


def test_threads_are_given_back() -> None:
    torch.set_num_threads(2)
    make_ppo(True).learn(ROLLOUT)
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_it_learns_what_is_seen_only_in_an_older_frame() -> None:
    options: dict[str, Any] = {"n_steps": 32, "batch_size": 64, "n_epochs": 4, "gamma": 0.5}
    model = make_ppo(True, depth=2, delay=1, ent_coef=0.01, **options).learn(6_144)
    world = Columns(delay=1)
    assert mean_return(model, world, depth=2) > 0.95 * world.best_return


@pytest.mark.parametrize("precision, then", [("fp32", 1), ("bf16", 2)])
def test_only_reduced_precision_may_round_by_who_was_faster(
    precision: str, then: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    model = make_ppo(True, policy_kwargs={**TINY, "precision": precision})
    threads: list[int] = []
    learn = PPOLearner.learn
    begun = Event()

    def note(self: PPOLearner, *args: Any) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        begun.set()
        # The first of four minibatches takes until the rollout beside it is over.
        assert len(threads) > 1 or model._runner._caller_waits.wait(60)
        return learn(self, *args)

    class Patience(BaseCallback):
        def _on_step(self) -> bool:
            # The rollout, until the first minibatch has begun.
            return self.num_timesteps <= ROLLOUT or begun.wait(60)

    monkeypatch.setattr(PPOLearner, "learn", note)
    model.learn(2 * ROLLOUT, callback=Patience())
    assert threads[:4] == [1, then, then, then]
