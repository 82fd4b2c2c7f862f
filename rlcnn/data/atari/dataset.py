"""Labelled observations of games that the emulator plays, which needs no download."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import ale_py
import cv2
import numpy as np
import torch

from envs.checks import check_count, check_seed
from envs.errors import UserError, nearest
from envs.machine.cores import usable_cores
from envs.protocol import get_protocol
from envs.registry import atari_rom
from rlcnn.data.atari.cache import cache_path, read_cache, write_cache
from rlcnn.data.atari.collecting import PARTS, GameFrames, Part, collect
from rlcnn.data.atari.emulator import minimal_actions
from rlcnn.data.atari.labels import Labelling, label_names, label_values, shuffle_half
from rlcnn.data.atari.options import FrameOptions, LabelKind
from rlcnn.data.atari.playing import EpisodeSpec, Play, Policy, play_by_policy, random_players
from rlcnn.data.atari.ram import RAM_VARIABLES
from rlcnn.data.atari.stacked import FrameBuffer, StackedFrames
from rlcnn.data.images import UNKNOWN, Episodes, Split

# For fewer frames no processes are started, each of which first imports what it needs.
_WORTH_WORKERS = 20_000

REWARDS = ("negative", "zero", "positive")
ORDERS = ("shuffled", "true")


@dataclass(frozen=True)
class PolicyPlay:
    """A policy that plays a game in place of chance.

    Attributes:
        act: from observations uint8 (n, frame_stack * C, obs_size, obs_size) to actions (n,), of
            the protocol's action set. One that chooses by its own generator must be given with
            that generator in the same state, if the same split is to come of it.
        name: what tells it from others, such as a hash of its weights; without one nothing of its
            games is kept on disk.
        exploration: chance that a step takes a random action instead.
    """

    act: Policy
    name: str = ""
    exploration: float = 0.05


def play_frames(
    games: Sequence[str],
    options: FrameOptions | None = None,
    *,
    seed: int,
    data_dir: Path | None = None,
    workers: int = 0,
    policies: Mapping[str, PolicyPlay] | None = None,
    on_progress: Callable[[str, int], None] = lambda game, new: None,
) -> Split:
    """Plays games and labels what an agent would see of them.

    Training and test observations are of different games, played with other seeds, and no
    observation of a game is in both or in one of them twice. The same arguments give the same
    split to the bit, whatever the number of workers.

    All tasks but "game" are one game's own, named like "Pong/ball_x", and not known for
    observations of other games. The observation that a game opens with has no action and no
    reward.

    Args:
        games: such as "Pong" or "ALE/Pong-v5"; one or more.
        options: how they are played and labelled; None takes the defaults.
        seed: of all that is drawn; 0 <= seed < 2**31.
        data_dir: what was seen is kept below it, in ``atari-frames/``, and read from there when
            it is asked for again, with whatever labels; None keeps nothing.
        workers: processes that play at random; 0 takes one a usable core, or this one alone where
            few frames are wanted. Policies play in this one.
        policies: for games that are not to be played at random, by their names as in ``games``.
        on_progress: is told of each game played: of which, and how many observations it brought.

    Returns:
        Two :class:`~rlcnn.data.atari.stacked.StackedFrames` that share their frames. What was
        played, and which tasks were left out, stands in ``about`` of both.

    Raises:
        UserError: a game is unknown, or the RAM table does not know it; a value is not valid; the
            games show too few different observations; no label is left; the disk refuses.
    """
    options = options or FrameOptions()
    options.check()
    seed = check_seed(seed)
    roms = _roms(games, options.labels)
    players = {short_name(game): policy for game, policy in (policies or {}).items()}
    for name in players:
        if name not in roms:
            raise UserError(
                f'a policy is given for "{name}", which is not played: expected one of'
                f" {', '.join(roms)}.{nearest(name, roms)}"
            )
    if not check_count("workers", workers, 0):
        few = (options.train_frames + options.test_frames) * len(roms) < _WORTH_WORKERS
        workers = 1 if few else usable_cores()

    gathered = DatasetBuilder()
    with random_players(workers) as at_random:
        for name, rom in roms.items():
            seen = _load_or_play(
                name, rom, options, seed, data_dir, at_random, players.get(name), on_progress
            )
            gathered.add(name, seen, *_label(name, rom, seen, options, seed))
            # One at a time, so that no more than one game's frames are in memory twice.
            del seen
    kept, left_out = _informative(gathered.labellings(options.labels), options.min_entropy)
    about = {
        "games": gathered.counts,
        "seed": seed,
        "options": dataclasses.asdict(options),
        "policies": {name: player.name for name, player in players.items()},
        "tasks": [each.about() for each in kept],
        "left_out": [each.about() for each in left_out],
    }
    return gathered.split(kept, about)


class DatasetBuilder:
    """What was seen of one game after the other, put together."""

    def __init__(self) -> None:
        self.counts: dict[str, Mapping[Part, Mapping[str, int]]] = {}
        self._frames: FrameBuffer | None = None
        self._stacks: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
        self._matches: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
        self._labellings: list[list[Labelling]] = []

    def add(
        self,
        name: str,
        seen: GameFrames,
        stacks: Mapping[Part, np.ndarray],
        labellings: list[Labelling],
    ) -> None:
        self.counts[name] = seen.counts
        self._labellings.append(labellings)
        if self._frames is None:
            self._frames = FrameBuffer(seen.frames.shape[1:])
        offset = len(self._frames) - 1
        self._frames.append(seen.frames[1:])
        for part in PARTS:
            self._stacks[part].append(np.where(stacks[part] > 0, stacks[part] + offset, 0))
            played = sum(counts[part]["games"] for counts in self.counts.values())
            before = played - seen.counts[part]["games"]
            self._matches[part].append(seen.parts[part].matches + before)

    def labellings(self, asked: Sequence[LabelKind]) -> list[Labelling]:
        """All tasks, over the observations of all games."""
        sizes = {part: [len(each) for each in self._stacks[part]] for part in PARTS}
        spread = [
            _spread(each, i, sizes) for i, group in enumerate(self._labellings) for each in group
        ]
        if "game" in asked and len(self.counts) > 1:
            spread.append(_label_games(tuple(self.counts), sizes))
        return spread

    def split(self, labellings: list[Labelling], about: Mapping[str, Any]) -> Split:
        """The observations with these labels; nothing can be added any more."""
        assert self._frames is not None
        pixels = torch.from_numpy(self._frames.finish())
        tasks = [each.task for each in labellings]
        parts = []
        for part in PARTS:
            stacks = self._stacks[part]
            games = np.repeat(np.arange(len(stacks)), [len(each) for each in stacks])
            labels = np.stack([getattr(each, part) for each in labellings], axis=1)
            parts.append(
                StackedFrames(
                    pixels,
                    torch.from_numpy(np.concatenate(stacks)),
                    torch.from_numpy(labels),
                    tasks,
                    about,
                    Episodes(
                        torch.from_numpy(games),
                        torch.from_numpy(np.concatenate(self._matches[part])),
                    ),
                )
            )
        return Split(*parts)


def _load_or_play(
    name: str,
    rom: str,
    options: FrameOptions,
    seed: int,
    data_dir: Path | None,
    at_random: Play,
    player: PolicyPlay | None,
    on_progress: Callable[[str, int], None],
) -> GameFrames:
    """One game's observations, from the disk or played."""
    match = EpisodeSpec(
        rom=rom,
        protocol=get_protocol(options.protocol),
        obs=options.obs,
        obs_size=options.obs_size,
        max_steps=options.max_episode_steps,
        repeat_probability=options.repeat_probability if options.play == "sticky-random" else 0.0,
        seed=0,
    )
    wanted: dict[Part, int] = {"train": options.train_frames, "test": options.test_frames}
    settings = {
        "match": dataclasses.asdict(match),
        "wanted": wanted,
        "frame_stack": options.frame_stack,
        "seed": seed,
        "policy": None if player is None else [player.name, player.exploration],
        "versions": {"ale-py": ale_py.__version__, "opencv": cv2.__version__},
        "format": 1,
    }
    path = None
    if data_dir is not None and (player is None or player.name):
        path = cache_path(data_dir / "atari-frames", name, settings)
        cached = read_cache(path)
        if cached is not None:
            return cached
    play = at_random
    if player is not None:
        play = _playing(player, options.frame_stack)
    collected = collect(
        match,
        wanted,
        frame_stack=options.frame_stack,
        seed=seed,
        play=play,
        on_progress=lambda new: on_progress(name, new),
    )
    if path is not None:
        write_cache(path, collected, settings)
    return collected


def _playing(player: PolicyPlay, frame_stack: int) -> Play:
    if not 0 <= player.exploration <= 1:
        raise UserError(f"exploration must be from 0 to 1, not {player.exploration!r}")
    return lambda matches: play_by_policy(
        matches, player.act, frame_stack=frame_stack, exploration=player.exploration
    )


def _label(
    name: str, rom: str, seen: GameFrames, options: FrameOptions, seed: int
) -> tuple[dict[Part, np.ndarray], list[Labelling]]:
    """One game's stacks, some of them shuffled where order is asked for, and all of its tasks."""
    stacks = {part: seen.parts[part].stacks for part in PARTS}
    known = {part: np.ones(len(stacks[part]), dtype=bool) for part in PARTS}
    labellings = []
    if "order" in options.labels:
        orders = {}
        for i, part in enumerate(PARTS):
            stacks[part], orders[part] = shuffle_half(stacks[part], [seed, i])
            # Which frame is the newest, and so what happened last, is not to be seen any more.
            known[part] = orders[part] != ORDERS.index("shuffled")
        labellings.append(label_names(f"{name}/order", ORDERS, **orders))

    def where_known(values: Mapping[Part, np.ndarray]) -> dict[str, np.ndarray]:
        return {part: np.where(known[part], values[part], UNKNOWN) for part in PARTS}

    if "ram" in options.labels:
        for variable, byte in RAM_VARIABLES[rom].items():
            values = where_known(
                {part: seen.parts[part].ram[:, byte].astype(np.int64) for part in PARTS}
            )
            task = f"{name}/{variable}"
            labellings.append(label_values(task, **values, max_classes=options.max_classes))
    if "action" in options.labels:
        actions = where_known({part: seen.parts[part].actions for part in PARTS})
        labellings.append(label_names(f"{name}/action", minimal_actions(rom), **actions))
    if "reward" in options.labels:
        for part in PARTS:
            # Nothing was done yet that could be rewarded.
            known[part] = known[part] & (seen.parts[part].ages > 0)
        signs = where_known({part: np.sign(seen.parts[part].rewards) + 1 for part in PARTS})
        labellings.append(label_names(f"{name}/reward", REWARDS, **signs))
    return stacks, labellings


def _spread(labelling: Labelling, game: int, sizes: Mapping[Part, list[int]]) -> Labelling:
    """One game's labels among the observations of all games, which it does not know."""
    spread = {}
    for part in PARTS:
        spread[part] = np.full(sum(sizes[part]), UNKNOWN, dtype=np.int64)
        start = sum(sizes[part][:game])
        spread[part][start : start + sizes[part][game]] = getattr(labelling, part)
    return dataclasses.replace(labelling, train=spread["train"], test=spread["test"])


def _label_games(names: tuple[str, ...], sizes: Mapping[Part, list[int]]) -> Labelling:
    games = {part: np.repeat(np.arange(len(names)), sizes[part]) for part in PARTS}
    return label_names("game", names, **games)


def _informative(
    labellings: list[Labelling], min_entropy: float
) -> tuple[list[Labelling], list[Labelling]]:
    """Those worth learning, and those left out.

    Raises:
        UserError: there is none worth learning.
    """
    kept: list[Labelling] = []
    left_out: list[Labelling] = []
    for each in labellings:
        worth = len(each.task.classes) > 1 and each.entropy >= min_entropy
        (kept if worth else left_out).append(each)
    if not kept:
        told = ", ".join(f"{each.task.name} {each.entropy:.3f}" for each in left_out[:8])
        raise UserError(
            "no label is left to learn: the normalised entropy of each is below min_entropy "
            f"{min_entropy:g}{f' ({told})' if told else ''}; ask for other labels or more frames"
        )
    return kept, left_out


def short_name(game: str) -> str:
    """A game's name without the namespace and the version: "ALE/Pong-v5" -> "Pong"."""
    return game.removeprefix("ALE/").removesuffix("-v5")


def _roms(games: Sequence[str], labels: Sequence[LabelKind]) -> dict[str, str]:
    """The ROM of each game, by the game's short name, in the order given."""
    roms: dict[str, str] = {}
    for game in games:
        name = short_name(game)
        rom = atari_rom(f"ALE/{name}-v5")
        if name in roms:
            raise UserError(f'the game "{name}" is given twice')
        if "ram" in labels and rom not in RAM_VARIABLES:
            others = ", ".join(label for label in get_args(LabelKind) if label != "ram")
            raise UserError(
                f'the RAM table does not know "{name}".{nearest(rom, RAM_VARIABLES)} It knows '
                f'{", ".join(RAM_VARIABLES)}; without the label "ram" ({others}) any game will do'
            )
        roms[name] = rom
    if not roms:
        raise UserError("no game is given: expected one or more, such as Pong")
    return roms
