"""Groups of environments behind one face."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from envs.atari import AtariVecEnv
from envs.groups import GroupedVecEnv
from envs.stacking import frame_stacking


def make_groups(seed: int = 0) -> GroupedVecEnv:
    sizes = {"obs_size": 36, "frame_stack": 2}
    venv = GroupedVecEnv([AtariVecEnv("ALE/Pong-v5", count, **sizes) for count in (1, 2)])  # type: ignore[arg-type]
    venv.seed(seed)
    return venv


@pytest.fixture(scope="module")
def venv() -> Iterator[GroupedVecEnv]:
    venv = make_groups()
    yield venv
    venv.close()


def test_it_plays_what_its_groups_play(venv: GroupedVecEnv) -> None:
    together, apart = venv, make_groups()
    together.seed(0)
    assert (together.num_envs, together.observation_space) == (3, apart.groups[0].observation_space)
    first = together.reset()
    assert np.array_equal(first, np.concatenate([group.reset() for group in apart.groups]))
    # Each game has a seed of its own.
    assert len({frame.tobytes() for frame in first}) > 1 or len(set(together.seed(0))) == 3
    rng = np.random.default_rng(0)
    for _ in range(20):
        actions = rng.integers(6, size=3)
        observations, rewards, dones, infos = together.step(actions)
        steps = [g.step(actions[envs]) for g, envs in zip(apart.groups, apart.slices, strict=True)]
        for mine, its in zip(
            (observations, rewards, dones), zip(*steps, strict=True), strict=False
        ):
            assert np.array_equal(mine, np.concatenate(its))
        assert infos == [info for step in steps for info in step[3]]
    apart.close()


def test_every_game_has_a_seed_of_its_own_that_follows_from_the_seed(venv: GroupedVecEnv) -> None:
    seeds = venv.seed(7)
    assert len(set(seeds)) == 3
    assert venv.seed(7) == seeds != venv.seed(8)


def test_it_answers_for_its_environments(venv: GroupedVecEnv) -> None:
    assert frame_stacking(venv) == venv.groups[0].frame_stacking  # type: ignore[attr-defined]
    assert venv.get_attr("num_envs", [0, 2]) == [1, 2]
    assert venv.env_is_wrapped(Monitor, [2]) == [True]
    with pytest.raises(AttributeError, match="in C\\+\\+"):
        venv.env_method("anything", indices=[1])


def test_every_group_is_closed_although_one_fails_to(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    venv = make_groups()
    first, second = venv.groups
    close_first, close_second = first.close, second.close

    def fail() -> None:
        closed.append(0)
        close_first()
        raise BrokenPipeError("a worker died")

    monkeypatch.setattr(first, "close", fail)
    monkeypatch.setattr(second, "close", lambda: [close_second(), closed.append(1)])
    with pytest.raises(BrokenPipeError, match="a worker died"):
        venv.close()
    assert sorted(closed) == [0, 1]
