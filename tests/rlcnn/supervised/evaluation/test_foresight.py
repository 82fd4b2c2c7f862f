"""Probes of rewards to come and of an agent's next action."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from envs.errors import UserError
from rlcnn.data.atari.options import FrameOptions, PolicyPlay
from rlcnn.data.images import UNKNOWN, Actions, Episodes, Split, StackedFrames, Task
from rlcnn.supervised.evaluation.foresight import (
    check_rewards,
    foreseen,
    label_foresight,
    run_foresight,
)
from rlcnn.supervised.evaluation.options import ProbeConfig

FRAMES = FrameOptions(
    train_frames=600, test_frames=400, obs_size=42, frame_stack=2, max_episode_steps=100
)
CONFIG = ProbeConfig(
    encoder="lenet", foresee="Pong", frames=FRAMES, methods=("svm",), device="cpu", batch_size=64
)
QUIET = Console(quiet=True)


def played(rewards: list[int], taken: list[int], ids: list[int]) -> StackedFrames:
    """Consecutive observations, each of another single frame."""
    count = len(ids)
    return StackedFrames(
        torch.zeros((count + 1, 1, 4, 4), dtype=torch.uint8),
        torch.arange(1, count + 1)[:, None],
        torch.zeros((count, 1), dtype=torch.int64),
        [Task("reward", ("no", "yes"))],
        {},
        Episodes(torch.zeros(count, dtype=torch.int64), torch.tensor(ids)),
        Actions(("noop", "left", "right"), torch.tensor(taken), torch.tensor(rewards)),
    )


def with_other_frames(part: StackedFrames) -> StackedFrames:
    """The same observations of other frames than those of :func:`played`."""
    part.stacks += 100
    part.frames = torch.zeros((len(part) + 101, 1, 4, 4), dtype=torch.uint8)
    return part


def test_labels_are_what_follows_in_the_same_game() -> None:
    u = UNKNOWN
    rewards = [0, 0, 0, -1, 0, 0, 0, 5, 0]
    taken = [u, 0, 1, 0, 1, u, 0, 0, 1]
    ids = [0, 0, 0, 0, 0, 1, 1, 1, 1]
    part = played(rewards, taken, ids)
    # Enough training frames of each action but the third.
    more = played([0] * 40, [u, *([0, 1] * 19), 2], [0] * 40)
    train, test = label_foresight(Split(more, part), reward_steps=2)
    # The second part has the stacks of the first part's beginning, so nothing of it is known.
    assert (test.labels == u).all()
    train, test = label_foresight(Split(more, with_other_frames(part)), reward_steps=2)
    assert test.labels[:, 0].tolist() == [0, 1, 1, u, u, 1, 1, u, u]
    assert test.labels[:, 1].tolist() == [0, 1, 0, 1, u, 0, 0, 1, u]
    assert train.labels[:-2, 0].tolist() == [0] * 38
    # The third action is too rare.
    assert train.labels[-3:, 1].tolist() == [1, u, u]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ProbeConfig:
    """Random games are played once for all tests."""
    return replace(CONFIG, data_dir=tmp_path_factory.mktemp("games"))


def test_rewards_and_the_next_action_of_a_policy_are_foreseen(config: ProbeConfig) -> None:
    def act(observations: np.ndarray) -> np.ndarray:
        # By the height of the other's paddle, at the left between the walls.
        paddle = (observations[:, -1, 8:38, 3:6] > 120).sum(axis=2)
        heights = (paddle * np.arange(30)).sum(axis=1) / paddle.sum(axis=1).clip(1)
        return np.where(heights > 14, 2, 3)

    result = run_foresight(config, {"Pong": PolicyPlay(act, exploration=0.1)}, QUIET)
    document = json.loads(json.dumps(result.to_json()))
    assert document["scores"].keys() == {"reward", "action"}
    reward, action = result.probes["reward"], result.probes["action"]
    for part in reward.images:
        counts = torch.bincount(part.labels[:, 0])
        assert counts[0] == counts[1]
    own = action.comparisons["svm"].random[0]
    assert own.accuracy > action.majority + 0.1
    assert own.interval[0] < own.accuracy < own.interval[1]
    assert any(line == "Pong: the agent's next action" for line in result.lines())
    # At random there is no agent whose action could be foreseen.
    alone = run_foresight(replace(config, reward_steps=5), {}, QUIET)
    assert alone.probes.keys() == {"reward"}
    assert alone.lines()[0] == "Pong: a reward within the next 5 steps"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"foresee": "Pitfall", "reward_steps": 1}, 'Pitfall" has too few rewards in random play'),
        ({"foresee": "Pnog"}, "Pnog"),
        ({"encoder": "lnet"}, "lnet"),
    ],
)
def test_games_that_say_nothing_are_one_line(
    config: ProbeConfig, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        run_foresight(replace(config, **changes), {}, QUIET)
    assert "\n" not in str(error.value)


def test_a_reward_after_every_frame_says_nothing() -> None:
    train, test = (played([1] * 40, [UNKNOWN, *[1] * 39], [0] * 40) for _ in range(2))
    split = label_foresight(Split(train, with_other_frames(test)), reward_steps=8)
    more = replace(CONFIG, reward_steps=8)
    with pytest.raises(UserError, match=r'nearly all frames of "Pong".*--reward-steps 2$'):
        check_rewards(split, more, at_random=True)


def test_an_agent_with_one_action_has_no_probe_of_it() -> None:
    part = played([0] * 40, [UNKNOWN, *[1] * 39], [0] * 40)
    labels = label_foresight(Split(part, part), reward_steps=2).train.labels
    assert (labels[:, 1] == UNKNOWN).all()


def test_a_study_is_ranked_as_its_probes_are(tmp_path: Path) -> None:
    outcomes = {"a": 3.0, "b": 10.0, "c": -2.0, "d": 4.0}
    files = {arm: tmp_path / f"{arm}.json" for arm in outcomes}
    for accuracy, file in zip((0.6, 0.9, 0.5, 0.7), files.values(), strict=True):
        score = {"accuracy": accuracy, "interval": [0, 1]}
        document = {"foresee": "Pong", "reward_steps": 10, "scores": {"reward": score}}
        file.write_text(json.dumps(document))
    assert foreseen(files, outcomes).rho == 1
    with pytest.raises(UserError, match=r'no probe "action": .* --players RUN_DIR'):
        foreseen(files, outcomes, "action")
    with pytest.raises(UserError, match="not of the same arms: d is in one alone"):
        foreseen(files, {arm: outcomes[arm] for arm in "abc"})
    files["d"].write_text(files["d"].read_text().replace("Pong", "Krull"))
    with pytest.raises(UserError, match="different games"):
        foreseen(files, outcomes)
