"""Agents as something that learns for a number of steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.tiny_agents import tiny

from agents.benchmark.peers import peer_variants
from agents.measure.learners import Laps, our_agent


def test_an_iteration_of_ppo_is_a_rollout() -> None:
    assert tiny("ppo", num_envs=3).hyperparameters.timed_steps(3) == 3 * 8


@pytest.mark.parametrize("num_envs, train_freq, steps", [(1, 4, 200), (8, 4, 200), (3, 4, 204)])
def test_an_iteration_of_dqn_is_whole_rounds_of_updates(
    num_envs: int, train_freq: int, steps: int
) -> None:
    config = tiny("dqn", num_envs=num_envs)
    config = replace(config, dqn=replace(config.dqn, train_freq=train_freq))
    assert config.hyperparameters.timed_steps(num_envs) == steps


def test_our_ppo_learns_from_whole_rollouts() -> None:
    learner = our_agent(tiny("ppo", overlap="off"))
    assert (learner.warm_up_steps, learner.least_steps) == (0, 16)
    assert learner.learn(16) == 16
    # Only an overlapping agent has a steady rate.
    assert learner.learn(4 * 16) == 4 * 16
    assert learner.steady_rate is None
    assert learner.replay_bytes_per_transition is None
    learner.close()


def test_dqn_keeps_a_transition_in_little_more_than_a_frame() -> None:
    config = tiny("dqn")
    frame = 44 * 44
    ours = our_agent(config)
    assert ours.warm_up_steps == 20
    assert ours.learn(40) == 40
    assert ours.replay_bytes_per_transition is not None
    assert frame < ours.replay_bytes_per_transition < 1.1 * frame
    ours.close()
    theirs = peer_variants("sb3", config)["DummyVecEnv"]()
    assert theirs.learn(40) == 40
    # Two stacks of four, an action of eight bytes, and three numbers of four.
    assert theirs.replay_bytes_per_transition == 2 * 4 * frame + 8 + 3 * 4
    theirs.close()


def test_overlapping_rollouts_are_timed_where_an_update_runs_beside_them() -> None:
    laps = Laps()
    for steps, clock in ((0, 0.0), (16, 5.0), (32, 6.0)):
        assert laps.rate is None
        laps.add(steps, clock)
    assert laps.rate == 16
    laps.add(48, 8.0)
    # The first took 5 seconds without an update beside it.
    assert laps.rate == pytest.approx(32 / 3)


def test_an_overlapping_agent_has_a_steady_rate() -> None:
    learner = our_agent(tiny("ppo", overlap="on"))
    assert learner.learn(4 * 16) == 4 * 16
    assert learner.steady_rate is not None
    assert learner.learn(16) == 16
    assert learner.steady_rate is None
    learner.close()
