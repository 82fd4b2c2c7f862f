"""Reference scores, and scores normalised by them."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import ale_py
import gymnasium as gym
import numpy as np
import pytest

from envs.errors import UserError
from rlcnn.stats import ATARI57, RandomAgent, find_game, human_normalise, random_normalise


def test_the_table_is_that_of_the_data_folder() -> None:
    folder = os.environ.get("RLCNN_DATA")
    if folder is None:
        pytest.skip("RLCNN_DATA does not name a folder with atari57-scores.csv")
    with open(Path(folder) / "atari57-scores.csv", newline="") as file:
        rows = {
            row["game"]: (float(row["random"]), float(row["human"])) for row in csv.DictReader(file)
        }
    assert dict(ATARI57) == rows


def test_all_57_games_are_found_by_the_emulators_ids() -> None:
    gym.register_envs(ale_py)
    found = set()
    for env_id, spec in gym.registry.items():
        if re.fullmatch(r"ALE/\w+-v5", env_id) and spec.kwargs["game"] in ATARI57:
            assert find_game(env_id) == spec.kwargs["game"]
            found.add(find_game(env_id))
    assert found == set(ATARI57)
    assert len(found) == 57


@pytest.mark.parametrize("name", ["ALE/MsPacman-v5", "MsPacman", "ms_pacman"])
def test_a_game_has_several_names(name: str) -> None:
    assert find_game(name) == "ms_pacman"


@pytest.mark.parametrize("name", ["Pong-v0", "Breakout-v1", "my_games:Pong-v5"])
def test_other_environments_with_a_games_name_have_no_human_score(name: str) -> None:
    with pytest.raises(UserError, match="no human and random scores are known"):
        find_game(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("ALE/Pongg-v5", 'Did you mean "pong"?'), ("breakot", 'Did you mean "breakout"?')],
)
def test_an_unknown_game_is_named_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(name)) as caught:
        find_game(name)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_is_0_and_human_is_1() -> None:
    games = ["ALE/Pong-v5", "breakout"]
    scores = np.array([[-20.7, 1.7], [14.6, 30.5], [-20.7 + 35.3 / 2, 30.5 + 28.8]])
    expected = [[0, 0], [1, 1], [0.5, 2]]
    np.testing.assert_allclose(human_normalise(scores, games), expected, atol=1e-12)


def test_a_measured_random_agent_replaces_the_tables() -> None:
    agent = RandomAgent.from_returns({"ALE/Pong-v5": [-21.0, -20.0, -19.0]})
    np.testing.assert_allclose(human_normalise([[-20.0], [14.6]], ["pong"], agent), [[0], [1]])
    # Its mean is -20 and its deviation 1.
    np.testing.assert_allclose(random_normalise([[-20.0], [-17.5]], ["pong"], agent), [[0], [2.5]])


def test_the_limit_of_a_random_agent_is_standard_errors_above_its_mean() -> None:
    agent = RandomAgent.from_returns({"pong": [-21.0, -20.0, -19.0, -20.0]})
    deviation = np.sqrt(2 / 3)
    assert agent.limit("pong", episodes=4, z=2.0) == pytest.approx(
        -20 + 2 * deviation * np.sqrt(1 / 4 + 1 / 4)
    )


def test_agents_at_random_hardly_pass_the_limit() -> None:
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(200):
        agent = RandomAgent.from_returns({"a": rng.exponential(size=100)})
        passed += rng.exponential(size=30).mean() > agent.limit("a", episodes=30)
    assert passed <= 5


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        ({"pong": [1.0]}, "1 returns"),
        ({"pong": [1.0, np.nan]}, "not all finite"),
    ],
)
def test_a_random_agent_needs_two_finite_returns(
    returns: dict[str, list[float]], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        RandomAgent.from_returns(returns)


def test_scores_that_cannot_be_normalised_are_refused() -> None:
    agent = RandomAgent.from_returns({"pong": [3.0, 3.0], "breakout": [31.0, 33.0]})
    with pytest.raises(UserError, match="cannot be normalised by their deviation"):
        random_normalise([1.0], ["pong"], agent)
    with pytest.raises(UserError, match="no less than the human"):
        human_normalise([1.0], ["breakout"], agent)
    with pytest.raises(UserError, match=r"not measured in .*ALE/Boxing"):
        human_normalise([1.0], ["ALE/Boxing-v5"], agent)
    with pytest.raises(UserError, match="2 games were given with 1 names"):
        human_normalise([1.0, 2.0], ["pong"])
    with pytest.raises(UserError, match="0 games"):
        agent.limit("pong", episodes=0)
