"""Probes that foresee what agents reach: of rewards to come, and of an agent's next action.

In Zhang, GX, Girdhar, Misra & Hjelm 2022, "Light-weight probing of unsupervised representations for
reinforcement learning", the accuracies of such probes rank encoders as their agents' scores do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device
from rlcnn.data.atari.labels import repeated_rows
from rlcnn.data.atari.options import PolicyPlay
from rlcnn.data.by_name import load_data
from rlcnn.data.images import UNKNOWN, Split, StackedFrames, Task
from rlcnn.data.names import ATARI
from rlcnn.runs.files import read_json
from rlcnn.runs.provenance import provenance
from rlcnn.stats.rank_correlation import RankCorrelation, rank_correlation
from rlcnn.supervised.evaluation import probe
from rlcnn.supervised.evaluation.options import ProbeConfig
from rlcnn.supervised.evaluation.probing import (
    ProbeResult,
    build_before_play,
    build_probed,
    compare_with_random,
)

# Frames to fit on and to test on, where the options name no numbers.
_MOST_IMAGES = {"train": 10_000, "test": 5_000}

# Classes with fewer training frames are left out.
_LEAST_OF_CLASS = 10

REWARD, ACTION = "reward", "action"


@dataclass(frozen=True)
class Foresight:
    """The probes of one encoder on one game, "reward" and perhaps "action"."""

    config: ProbeConfig
    probes: Mapping[str, ProbeResult]

    def to_json(self) -> dict[str, Any]:
        """Everything about the probes as JSON values.

        ``scores`` has each probe's accuracy with its interval by the first of ``methods``, which
        :func:`foreseen` reads.
        """
        scores = {}
        for name, result in self.probes.items():
            comparison = result.comparisons[self.config.methods[0]]
            own = comparison.own or next(iter(comparison.random.values()))
            scores[name] = {"accuracy": own.accuracy, "interval": list(own.interval)}
        return {
            "foresee": self.config.foresee,
            "reward_steps": self.config.reward_steps,
            "scores": scores,
            "probes": {name: result.to_json() for name, result in self.probes.items()},
            "provenance": provenance(),
        }

    def lines(self) -> list[str]:
        """The probes as lines of text."""
        asked = {
            REWARD: f"a reward within the next {self.config.reward_steps} steps",
            ACTION: "the agent's next action",
        }
        return [
            line
            for name, result in self.probes.items()
            for line in (f"{self.config.foresee}: {asked[name]}", *result.lines())
        ]


def run_foresight(
    config: ProbeConfig, policies: Mapping[str, PolicyPlay], console: Console
) -> Foresight:
    """Plays a game and fits the probes to the frozen features of its frames.

    The game is played by its policy in ``policies``, whose next action is then probed, too, or at
    random. Frames that equal an earlier one are left out. Frames with a reward ahead and frames
    without one are equally many, so that guessing is right half of the time.

    Raises:
        UserError: as for :func:`rlcnn.supervised.evaluation.probing.run_probe`, or the frames have
            too few rewards.
    """
    config = replace(
        config,
        device=resolve_device(config.device),
        data=f"{ATARI}{config.foresee}",
        frames=replace(config.frames, labels=("reward",), min_entropy=0.0),
    )
    build_before_play(config)
    played = load_data(
        config.data,
        config.data_dir,
        seed=config.seed,
        frames=config.frames,
        policies=policies,
        consecutive=True,
    )
    split = label_foresight(played, config.reward_steps)
    check_rewards(split, config, at_random=not policies)
    for number, part in enumerate(split):
        _balance(part.labels[:, 0], np.random.default_rng([config.seed, number]))
    probes = {REWARD: _probe(split, REWARD, config, console)}
    if policies:
        if (split.train.labels[:, 1] != UNKNOWN).any():
            probes[ACTION] = _probe(split, ACTION, config, console)
        else:
            console.print("the agent nearly always takes one action: no probe of its next action")
    return Foresight(config, probes)


def label_foresight(played: Split, reward_steps: int) -> Split:
    """Labels consecutive observations with what follows them.

    Returns:
        The same observations with two tasks. "reward" is whether a reward other than 0 follows
        within ``reward_steps`` steps; unknown if the game ends before. "action" is the next action;
        unknown for actions with fewer than ten training frames, and if one action alone is
        left. Both are unknown for observations that equal an earlier one.
    """
    parts: list[StackedFrames] = []
    sources = [part for part in played if isinstance(part, StackedFrames)]
    repeated = repeated_rows(*(part.stacks.numpy() for part in sources))
    for part, again in zip(sources, map(torch.from_numpy, repeated), strict=True):
        assert part.actions is not None
        assert part.episodes is not None
        known = ~again
        rewards = _following(part.actions.rewards != 0, part.episodes.ids, reward_steps)
        rewards[again] = UNKNOWN
        actions = torch.full_like(rewards, UNKNOWN)
        together = part.episodes.ids[1:] == part.episodes.ids[:-1]
        actions[:-1] = torch.where(together & known[:-1], part.actions.taken[1:], UNKNOWN)
        tasks = [Task(REWARD, ("no", "yes")), Task(ACTION, part.actions.names)]
        labels = torch.stack([rewards, actions], dim=1)
        parts.append(
            StackedFrames(part.frames, part.stacks, labels, tasks, part.about, part.episodes)
        )
    train, test = parts
    counts = torch.bincount(train.labels[train.labels[:, 1] != UNKNOWN, 1])
    frequent = (counts >= _LEAST_OF_CLASS).nonzero()[:, 0]
    if len(frequent) < 2:
        frequent = frequent[:0]
    for each in parts:
        each.labels[~torch.isin(each.labels[:, 1], frequent), 1] = UNKNOWN
    return Split(train, test)


def foreseen(
    files: Mapping[str, Path], outcomes: Mapping[str, float], probe: str = REWARD
) -> RankCorrelation:
    """How well a probe ranks the arms of a study as their agents' scores do.

    Args:
        files: of each arm, the file that ``probe_encoder.py --foresee GAME --json FILE`` wrote for
            its encoder.
        outcomes: of each arm, such as mean scores of its runs in this game.
        probe: "reward" or "action".

    Raises:
        UserError: the arms differ, files are of different games or lack the probe, or there are too
            few arms.
    """
    if files.keys() != outcomes.keys():
        odd = ", ".join(sorted(files.keys() ^ outcomes.keys()))
        raise UserError(f"probes and outcomes are not of the same arms: {odd} is in one alone")
    documents = {arm: read_json(path) for arm, path in files.items()}
    for arm, document in documents.items():
        if probe not in document.get("scores", {}):
            raise UserError(
                f'"{files[arm]}" has no probe "{probe}": make it by probe_encoder.py --foresee'
                f" GAME --json FILE{' --players RUN_DIR' if probe == ACTION else ''}"
            )
    games = {(document["foresee"], document["reward_steps"]) for document in documents.values()}
    if len(games) > 1:
        raise UserError("the probes are of different games or steps: expected one game for all")
    accuracies = [documents[arm]["scores"][probe]["accuracy"] for arm in outcomes]
    return rank_correlation(accuracies, list(outcomes.values()))


def _probe(split: Split, name: str, config: ProbeConfig, console: Console) -> ProbeResult:
    task = next(task for task in split.train.tasks if task.name == name)
    column = split.train.tasks.index(task)
    asked = {"train": config.train_size, "test": config.test_size}
    sizes = {
        part: min(
            asked[part] or most, int((getattr(split, part).labels[:, column] != UNKNOWN).sum())
        )
        for part, most in _MOST_IMAGES.items()
    }
    images = probe.choose_images(
        split,
        task,
        train_size=sizes["train"],
        test_size=sizes["test"],
        size=config.size,
        seed=config.seed,
    )
    encoder, report = build_probed(config, config.encoder, images)
    comparisons = compare_with_random(config, encoder, images, console)
    return ProbeResult(config, encoder, report, images, comparisons, {})


def _following(rewarded: torch.Tensor, ids: torch.Tensor, steps: int) -> torch.Tensor:
    """Whether one of the next ``steps`` observations of the same game is ``rewarded``: 0, 1."""
    labels = torch.full_like(ids, UNKNOWN)
    count = len(ids) - steps
    if count > 0:
        sums = torch.cat([torch.zeros(1, dtype=torch.int64), rewarded.long().cumsum(0)])
        ahead = (sums[steps + 1 :] - sums[1 : count + 1] > 0).long()
        labels[:count] = torch.where(ids[:count] == ids[steps:], ahead, UNKNOWN)
    return labels


def _balance(labels: torch.Tensor, random: np.random.Generator) -> None:
    """Sets labels of the more frequent of the classes 0 and 1 to UNKNOWN, in place."""
    rows = [np.flatnonzero(labels.numpy() == label) for label in (0, 1)]
    few = min(map(len, rows))
    for each in rows:
        labels[torch.from_numpy(random.permutation(each)[few:])] = UNKNOWN


def check_rewards(split: Split, config: ProbeConfig, *, at_random: bool) -> None:
    """Refuses frames of which nearly all, or nearly none, are followed by a reward."""
    counts = [torch.bincount(p.labels[p.labels[:, 0] != UNKNOWN, 0], minlength=2) for p in split]
    without, rewarded = (min(int(count[label]) for count in counts) for label in (0, 1))
    frames = config.frames
    if rewarded < _LEAST_OF_CLASS:
        play = "random play" if at_random else "this agent's play"
        advice = "let an agent play, --players RUN_DIR, or " if at_random else ""
        raise UserError(
            f'"{config.foresee}" has too few rewards in {play}: {rewarded} frames are followed by'
            f" one within {config.reward_steps} steps; {advice}collect more,"
            f" --frames.train-frames {10 * frames.train_frames} --frames.test-frames"
            f" {10 * frames.test_frames}"
        )
    if without < _LEAST_OF_CLASS:
        raise UserError(
            f'nearly all frames of "{config.foresee}" are followed by a reward within'
            f" {config.reward_steps} steps: expected fewer steps, such as --reward-steps"
            f" {max(1, config.reward_steps // 4)}"
        )
