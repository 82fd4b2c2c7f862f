"""Labelled observations of Atari games, made by the emulator without any download."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
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
from envs.registry import atari_rom, game_name
from rlcnn.data.atari.collecting import (
    PARTS,
    FrameBuffer,
    GameFrames,
    Part,
    cache_path,
    collect,
    read_cache,
    write_cache,
)
from rlcnn.data.atari.emulator import minimal_actions
from rlcnn.data.atari.labels import (
    Labelling,
    label_names,
    label_values,
    repeated_rows,
    shuffle_half,
)
from rlcnn.data.atari.options import FrameOptions, LabelKind, PolicyPlay
from rlcnn.data.atari.playing import (
    EpisodeSpec,
    Play,
    play_by_policy,
    play_in_turn,
    random_players,
)
from rlcnn.data.atari.ram import RAM_VARIABLES
from rlcnn.data.images import UNKNOWN, Actions, Episodes, Split, StackedFrames

# Starting processes takes longer than playing fewer frames than this.
_WORTH_WORKERS = 20_000

REWARDS = ("negative", "zero", "positive")
ORDERS = ("shuffled", "true")


def play_frames(
    games: Sequence[str],
    options: FrameOptions | None = None,
    *,
    seed: int,
    data_dir: Path | None = None,
    workers: int = 0,
    policies: Mapping[str, PolicyPlay] | None = None,
    consecutive: bool = False,
    on_progress: Callable[[str, int], None] = lambda game, new: None,
) -> Split:
    """Plays games and labels an agent's observations of them.

    Training and test observations come from different episodes with different seeds. No observation
    of a game occurs twice, in one part or in both. The same arguments give the same split to the
    bit, for any number of workers.

    All tasks but "game" belong to one game, with names like "Pong/ball_x"; they are unknown for
    observations of other games. The first observation of an episode has no action and no reward.

    With ``consecutive`` the split has another form: all observations of each episode in order, with
    their actions. An observation that equals an earlier one has no labels; games without RAM
    variables lack those labels, and there may be no task at all.

    Args:
        games: one or more games, such as "Pong" or "ALE/Pong-v5".
        options: how games are played and labelled.
        seed: seed of everything random; 0 <= seed < 2**31.
        data_dir: observations are cached in ``atari-frames/`` below it, for all labels; None caches
            nothing.
        workers: processes of random play; 0 takes one for each usable core, or only this process
            for few frames. Policies play in this process.
        policies: policies by the names in ``games``; the other games are played at random.
        consecutive: whether all observations of each episode are kept.
        on_progress: called after each episode with the game and the number of new observations.

    Returns:
        Two :class:`~rlcnn.data.images.StackedFrames` that share their frames. Their
        ``about`` lists what was played, and which tasks were left out.

    Raises:
        UserError: a game is unknown, or has no RAM variables; a value is not valid; the games show
            too few different observations; no label is left; the disk cannot be written.
    """
    options = options or FrameOptions()
    options.check()
    seed = check_seed(seed)
    roms = _roms(games, () if consecutive else options.labels)
    players = {_short_name(game): policy for game, policy in (policies or {}).items()}
    for name, player in players.items():
        if name not in roms:
            raise UserError(
                f'a policy is given for "{name}", which is not played: expected one of'
                f" {', '.join(roms)}.{nearest(name, roms)}"
            )
        if not 0 <= player.exploration <= 1:
            raise UserError(f"exploration must be from 0 to 1, not {player.exploration!r}")
    if not check_count("workers", workers, 0):
        few = (options.train_frames + options.test_frames) * len(roms) < _WORTH_WORKERS
        workers = 1 if few else usable_cores()

    builder = _Builder(consecutive)
    with random_players(workers) as play_at_random:
        for name, rom in roms.items():
            frames = _load_or_play(
                name,
                rom,
                options,
                seed,
                data_dir,
                play_at_random,
                players.get(name),
                consecutive,
                on_progress,
            )
            actions = minimal_actions(rom) if consecutive else ()
            builder.add(name, frames, actions, *_label(name, rom, frames, options, seed))
            # At most one game's frames are in memory twice.
            del frames
    about: dict[str, Any] = {
        "seed": seed,
        "options": _played_with(options),
        "policies": {name: player.name for name, player in players.items()},
    }
    if consecutive:
        about["consecutive"] = True
    return builder.split(options, about)


class _Builder:
    """Joins the observations of several games into one split."""

    def __init__(self, consecutive: bool) -> None:
        self._consecutive = consecutive
        self._counts: dict[str, Mapping[Part, Mapping[str, int]]] = {}
        self._frames: FrameBuffer | None = None
        self._stacks: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
        self._episodes: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
        self._actions: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
        self._rewards: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
        # Names of the actions of all games -> their numbers.
        self._numbers: dict[str, int] = {}
        # The number of a game, and its tasks; None for tasks of all games.
        self._labellings: list[tuple[int | None, Labelling]] = []

    def add(
        self,
        name: str,
        game: GameFrames,
        actions: Sequence[str],
        stacks: Mapping[Part, np.ndarray],
        labellings: list[Labelling],
    ) -> None:
        """Adds a game with its actions, stacks, int64 (n, frame_stack), and tasks."""
        if self._frames is None:
            self._frames = FrameBuffer(game.frames.shape[1:])
        offset = len(self._frames) - 1
        self._frames.append(game.frames[1:])
        for part in PARTS:
            played = sum(counts[part]["games"] for counts in self._counts.values())
            self._stacks[part].append(np.where(stacks[part] > 0, stacks[part] + offset, 0))
            self._episodes[part].append(game.parts[part].episodes + played)
            if self._consecutive:
                # The last number is UNKNOWN's, which is -1.
                numbers = [self._numbers.setdefault(each, len(self._numbers)) for each in actions]
                self._actions[part].append(np.array([*numbers, UNKNOWN])[game.parts[part].actions])
                self._rewards[part].append(game.parts[part].rewards)
        self._labellings += [(len(self._counts), each) for each in labellings]
        self._counts[name] = game.counts

    def split(self, options: FrameOptions, about: Mapping[str, Any]) -> Split:
        """The split with the tasks of enough entropy; nothing can be added afterwards."""
        assert self._frames is not None
        games = {
            part: np.repeat(np.arange(len(stacks)), [len(each) for each in stacks])
            for part, stacks in self._stacks.items()
        }
        if "game" in options.labels and len(self._counts) > 1:
            self._labellings.append((None, label_names("game", tuple(self._counts), **games)))
        kept: list[tuple[int | None, Labelling]] = []
        left_out: list[Labelling] = []
        for game, each in self._labellings:
            if len(each.task.classes) > 1 and each.entropy >= options.min_entropy:
                kept.append((game, each))
            else:
                left_out.append(each)
        if not kept and not self._consecutive:
            found = ", ".join(f"{each.task.name} {each.entropy:.3f}" for each in left_out[:8])
            raise UserError(
                "no label is left to learn: the normalised entropy of each is below min_entropy "
                f"{options.min_entropy:g}{f' ({found})' if found else ''}; ask for other labels or"
                " more frames"
            )
        about = {
            "games": self._counts,
            **about,
            "tasks": [each.about() for _, each in kept],
            "left_out": [each.about() for each in left_out],
        }
        pixels = torch.from_numpy(self._frames.finish())
        stacked = {part: np.concatenate(self._stacks[part]) for part in PARTS}
        # Elsewhere no two are equal, except shuffled ones by chance.
        repeated = repeated_rows(*stacked.values()) if self._consecutive else None
        parts = []
        for index, part in enumerate(PARTS):
            # A game's labels are not known for the observations of other games.
            labels = np.full((len(games[part]), len(kept)), UNKNOWN, dtype=np.int64)
            for column, (game, each) in enumerate(kept):
                rows = slice(None) if game is None else games[part] == game
                labels[rows, column] = getattr(each, part)
            if repeated is not None:
                labels[repeated[index]] = UNKNOWN
            actions = None
            if self._consecutive:
                taken, rewards = (
                    torch.from_numpy(np.concatenate(values[part]))
                    for values in (self._actions, self._rewards)
                )
                actions = Actions(tuple(self._numbers), taken, rewards)
            episodes = torch.from_numpy(np.concatenate(self._episodes[part]))
            parts.append(
                StackedFrames(
                    pixels,
                    torch.from_numpy(stacked[part]),
                    torch.from_numpy(labels),
                    [each.task for _, each in kept],
                    about,
                    Episodes(torch.from_numpy(games[part]), episodes),
                    actions,
                )
            )
        return Split(*parts)


def _load_or_play(
    name: str,
    rom: str,
    options: FrameOptions,
    seed: int,
    data_dir: Path | None,
    play: Play,
    player: PolicyPlay | None,
    consecutive: bool,
    on_progress: Callable[[str, int], None],
) -> GameFrames:
    """The observations of one game, from the cache or newly played, by ``play`` or the player."""
    spec = EpisodeSpec(
        rom=rom,
        protocol=get_protocol(options.protocol),
        obs=options.obs,
        obs_size=options.obs_size,
        max_steps=options.max_episode_steps,
        repeat_probability=options.repeat_probability if options.play == "sticky-random" else 0.0,
        seed=0,
    )
    wanted: dict[Part, int] = {"train": options.train_frames, "test": options.test_frames}
    # Changed keys would change the names of cached directories.
    settings: dict[str, Any] = {
        "match": dataclasses.asdict(spec),
        "wanted": wanted,
        "frame_stack": options.frame_stack,
        "seed": seed,
        "policy": None if player is None else [player.name, player.exploration],
        "versions": {"ale-py": ale_py.__version__, "opencv": cv2.__version__},
        "format": 1,
    }
    # Only where they are not what all was played with before there were these options.
    if consecutive:
        settings["consecutive"] = True
    if player is not None and options.random_share:
        settings["random_share"] = options.random_share
    path = None
    if data_dir is not None and (player is None or player.name):
        path = cache_path(data_dir / "atari-frames", name, settings)
        if (cached := read_cache(path)) is not None:
            return cached
    if player is not None:
        by_policy = functools.partial(
            play_by_policy,
            policy=player.act,
            frame_stack=options.frame_stack,
            exploration=player.exploration,
        )
        play = functools.partial(
            play_in_turn, by_policy=by_policy, at_random=play, random_share=options.random_share
        )
    collected = collect(
        spec,
        wanted,
        frame_stack=options.frame_stack,
        seed=seed,
        play=play,
        consecutive=consecutive,
        on_progress=functools.partial(on_progress, name),
    )
    if path is not None:
        write_cache(path, collected, settings)
    return collected


def _label(
    name: str, rom: str, game: GameFrames, options: FrameOptions, seed: int
) -> tuple[dict[Part, np.ndarray], list[Labelling]]:
    """The stacks of one game, half of them shuffled for the label "order", and all its tasks."""
    stacks = {part: game.parts[part].stacks for part in PARTS}
    known = {part: np.ones(len(stacks[part]), dtype=bool) for part in PARTS}
    labellings = []

    def where_known(values: Mapping[Part, np.ndarray]) -> dict[str, np.ndarray]:
        return {part: np.where(known[part], values[part], UNKNOWN) for part in PARTS}

    if "order" in options.labels:
        orders = {}
        for i, part in enumerate(PARTS):
            stacks[part], orders[part] = shuffle_half(stacks[part], [seed, i])
            # A shuffled stack no longer shows its newest frame, and so not the last action.
            known[part] = orders[part] != ORDERS.index("shuffled")
        labellings.append(label_names(f"{name}/order", ORDERS, **orders))
    if "ram" in options.labels and rom in RAM_VARIABLES:
        for variable, byte in RAM_VARIABLES[rom].items():
            ram = {part: game.parts[part].ram[:, byte].astype(np.int64) for part in PARTS}
            values = where_known(ram)
            task = f"{name}/{variable}"
            labellings.append(label_values(task, **values, max_classes=options.max_classes))
    if "action" in options.labels:
        actions = where_known({part: game.parts[part].actions for part in PARTS})
        labellings.append(label_names(f"{name}/action", minimal_actions(rom), **actions))
    if "reward" in options.labels:
        for part in PARTS:
            # The first observation follows no action.
            known[part] = known[part] & (game.parts[part].steps > 0)
        signs = where_known({part: np.sign(game.parts[part].rewards) + 1 for part in PARTS})
        labellings.append(label_names(f"{name}/reward", REWARDS, **signs))
    return stacks, labellings


def _played_with(options: FrameOptions) -> dict[str, Any]:
    """The options as JSON values, as they were before there was a share of random play."""
    values = dataclasses.asdict(options)
    if not options.random_share:
        del values["random_share"]
    return values


def _short_name(game: str) -> str:
    """``Pong`` of ``Pong``, ``Pong-v5`` or ``ALE/Pong-v5``."""
    return game_name(f"ALE/{game.removeprefix('ALE/')}")


def _roms(games: Sequence[str], labels: Sequence[LabelKind]) -> dict[str, str]:
    """Short name -> ROM of each game, in the given order."""
    roms: dict[str, str] = {}
    for game in games:
        name = _short_name(game)
        rom = atari_rom(f"ALE/{name}-v5")
        if name in roms:
            raise UserError(f'the game "{name}" is given twice')
        if "ram" in labels and rom not in RAM_VARIABLES:
            others = ", ".join(label for label in get_args(LabelKind) if label != "ram")
            raise UserError(
                f'the RAM table does not know "{name}".{nearest(rom, RAM_VARIABLES)} It knows '
                f"{', '.join(RAM_VARIABLES)}; other labels ({others}) work for any game"
            )
        roms[name] = rom
    if not roms:
        raise UserError("no game is given: expected one or more, such as Pong")
    return roms
