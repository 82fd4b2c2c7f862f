"""What hangs beside learning: what is due when, how it stops, what is shown."""

from __future__ import annotations

import io
import re
import signal
import time
from typing import Any

import pytest
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from support.property_tests import given, st
from support.toy_envs import Columns, WorldVecEnv

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.train.callbacks import BetweenUpdates, Every, ShowProgress, UpdateLog
from rlcnn.runs.progress import ProgressDisplay, Task
from rlcnn.runs.stopping import StopRequest, TrainingStopped

TINY = {"features_extractor_kwargs": {"encoder": "lenet", "encoder_options": {"features_dim": 8}}}


def make_ppo() -> PPO:
    """Rollouts of 16 steps."""
    model = PPO(
        "CnnPolicy",
        WorldVecEnv(Columns(), 4),
        n_steps=4,
        batch_size=16,
        n_epochs=1,
        policy_kwargs=TINY,
        device="cpu",
    )
    model.set_logger(Logger(None, []))
    return model


def make_dqn() -> DQN:
    """Updates after every 4 steps, one step of the vector."""
    model = DQN(
        "CnnPolicy",
        WorldVecEnv(Columns(), 4),
        buffer_size=1000,
        learning_starts=20,
        batch_size=4,
        policy_kwargs=TINY,
        device="cpu",
    )
    model.set_logger(Logger(None, []))
    return model


@pytest.fixture
def ppo() -> PPO:
    return make_ppo()


def steps_called(model: PPO | DQN, every: int, *lengths: int) -> list[int]:
    """At which steps something is called, over some learnings with an ``Every`` of their own."""
    called: list[int] = []
    for length in lengths:
        callback = Every(every, lambda: called.append(model.num_timesteps))
        model.learn(length, callback=callback, reset_num_timesteps=False)
    return called


def test_once_in_so_many_steps_between_two_updates(ppo: PPO) -> None:
    # Never at the end: what is due there is for whoever started the training.
    assert steps_called(ppo, 40, 16 * 10) == [48, 80, 128]
    assert ppo.num_timesteps == 160


def test_never(ppo: PPO) -> None:
    assert steps_called(ppo, 0, 64) == []


def test_oftener_than_there_are_updates_is_at_every_one(ppo: PPO) -> None:
    assert steps_called(ppo, 1, 64) == [16, 32, 48]


def test_dqn_is_between_updates_after_each_vector_step() -> None:
    assert steps_called(make_dqn(), 10, 60) == [12, 20, 32, 40, 52]


def test_what_was_not_done_to_its_end_is_pending(ppo: PPO) -> None:
    called: list[int] = []

    def fail() -> None:
        raise TrainingStopped

    cut_short = Every(40, fail)
    with pytest.raises(TrainingStopped):
        ppo.learn(160, callback=cut_short)
    assert (ppo.num_timesteps, cut_short.pending) == (48, True)
    again = Every(40, lambda: called.append(ppo.num_timesteps), pending=True)
    for _ in range(2):
        ppo.learn(64, callback=again, reset_num_timesteps=False)
        assert not again.pending
    assert called == [48, 80, 128, 160]


@given(
    every=st.integers(1, 50),
    rollout=st.integers(1, 30),
    rollouts=st.integers(2, 40),
    cut=st.integers(1, 39),
)
def test_a_resumed_training_calls_at_the_same_steps(
    every: int, rollout: int, rollouts: int, cut: int
) -> None:
    class Model:
        num_timesteps = 0

    def play(parts: list[range]) -> list[int]:
        model, called = Model(), []
        for part in parts:
            callback = Every(every, lambda: called.append(model.num_timesteps))
            callback.model = model  # type: ignore[assignment]
            model.num_timesteps = part.start * rollout
            callback.on_training_start({}, {})
            for number in part:
                model.num_timesteps = number * rollout
                callback.on_rollout_start()
        return called

    cut = min(cut, rollouts - 1)
    whole = play([range(rollouts)])
    # The first part is stopped where the second begins, after all that was due there.
    assert play([range(cut + 1), range(cut, rollouts)]) == whole
    assert whole == [
        number * rollout
        for number in range(1, rollouts)
        if number * rollout // every > (number - 1) * rollout // every
    ]


def test_an_update_is_logged_under_its_own_step(ppo: PPO) -> None:
    rows: list[tuple[int, set[str]]] = []

    class Rows(KVWriter):
        def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
            rows.append((step, {key.split("/")[0] for key in key_values}))

        def close(self) -> None: ...

    ppo.logger.output_formats.append(Rows())
    for _ in range(2):
        ppo.learn(32, callback=UpdateLog(), reset_num_timesteps=False)
    assert [step for step, kinds in rows if "time" in kinds] == [16, 32, 48, 64]
    assert [(step, kinds) for step, kinds in rows if "train" in kinds] == [
        (step, {"train"}) for step in (16, 32, 48, 64)
    ]


def test_a_stop_is_answered_between_two_updates(ppo: PPO) -> None:
    said: list[str] = []
    stop = StopRequest(said.append)

    class Press(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 24:
                stop.handle(signal.SIGINT, None)
            return True

    with pytest.raises(TrainingStopped):
        ppo.learn(1000, callback=[Press(), BetweenUpdates(stop.check)])
    assert ppo.num_timesteps == 32
    assert ppo._n_updates == 2
    assert len(said) == 1


def test_the_bar_shows_the_rate(ppo: PPO, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)

    class Pass(BaseCallback):
        """4 steps a second, and 6 seconds for each update: 16 steps in 10 seconds."""

        def _on_step(self) -> bool:
            nonlocal clock
            clock += 1.0
            return True

        def _on_rollout_end(self) -> None:
            nonlocal clock
            clock += 6.0

    out = io.StringIO()
    with ProgressDisplay(Console(file=out, force_terminal=True, width=60)) as display:
        ppo.learn(640, callback=[Pass(), ShowProgress(display.add("training", 640))])
    shown = [float(rate) for rate in re.findall(r"([\d.]+)/s", out.getvalue())]
    assert shown[-1] == pytest.approx(1.6, abs=0.5)
    assert re.search(r"640/640 .* left  return -?[\d.]+", out.getvalue())


@pytest.mark.parametrize("make", [make_ppo, make_dqn])
def test_the_display_names_updates_and_the_filling_of_a_replay(make: Any) -> None:
    phases: list[str] = []

    class Phases(Task):
        def begin_phase(self, name: str) -> None:
            phases.append(name)

    model = make()
    model.learn(32, callback=ShowProgress(Phases("training", 32)))
    filling = ["filling the replay"] * 2
    assert phases[:2] == (filling if make is make_dqn else ["", "update"])
    assert phases[-3:] == ["", "update", ""]
