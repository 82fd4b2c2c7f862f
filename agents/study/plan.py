"""A study as data: games x arms x seeds, and the training of each combination."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import gymnasium as gym

from agents.config import TrainConfig
from agents.registry import ALGORITHMS
from agents.study.arms import Arm, directory_name, parse_arm
from agents.study.labels import check_labels, short_labels
from agents.train.builder import build_agent, make_train_env
from agents.train.training import RESUMABLE
from envs.errors import UserError
from envs.registry import find_spec, game_name
from rlcnn.config.fields import MAX_SEED
from rlcnn.report.content import NamedRun
from rlcnn.runs.files import plain
from rlcnn.weights.load import weights_file

# Results depend on these, though a single run may change them when it is resumed.
RESULT_OPTIONS = {
    *("total_steps", "overlap", "env_groups", "eval_every", "eval_episodes"),
    *("interim_episodes", "interim_max_steps"),
}
RUNTIME_OPTIONS = RESUMABLE - RESULT_OPTIONS
"""Options that may differ between starts of a study, and between its runs."""

# Arms, games and seeds set these.
PER_RUN_OPTIONS = {"env", "weights", "mode", "seed"}

LEAST_SEEDS = 2

EVALUATIONS = 10
"""Evaluations of a run, with the one at its end, unless its options say otherwise."""

INTERIM_GAMES, INTERIM_STEPS = 5, 5_000
"""Games of an evaluation before the last one, and the agent steps after which such a game ends."""


@dataclass(frozen=True)
class StudyRun(NamedRun):
    """One training of a study, in a directory within the study's."""

    config: TrainConfig
    directory: str


@dataclass(frozen=True)
class StudyPlan:
    """What a study compares, and on what.

    Each arm is trained once on each game, by its id, with each seed; ``base`` holds every other
    option. ``labels`` name the arms for people; without them, they are made from the arms.
    ``explicit`` are options that count although they have the values of the study's preset, see
    :func:`~agents.study.arm_options.explicit_defaults`.
    """

    games: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    base: TrainConfig
    labels: tuple[str, ...] = ()
    explicit: tuple[str, ...] = ()

    @cached_property
    def arm_names(self) -> list[str]:
        """The label of each arm, in order, by which everything but its directory names it."""
        return list(self.labels) or short_labels(self.arms, self.full_names)

    @cached_property
    def full_names(self) -> list[str]:
        """Each arm in full, in order, with as much of a path as makes it differ from the others.

        Directories of runs have these names, so they do not depend on labels.
        """
        names = [arm.name for arm in self.arms]
        longest = max((len(Path(arm.weights).parts) for arm in self.arms), default=0)
        longer = [[arm.named(parts) for arm in self.arms] for parts in range(2, longest)]
        for others in [*longer, [arm.text for arm in self.arms]]:
            counts = Counter(names)
            names = [
                name if counts[name] == 1 else other
                for name, other in zip(names, others, strict=True)
            ]
        return names

    @cached_property
    def trainings(self) -> list[TrainConfig]:
        """The training of each arm, in order, whatever the game and the seed."""
        return [arm.configure(self.base, self.explicit) for arm in self.arms]

    @cached_property
    def runs(self) -> list[StudyRun]:
        """Every training, seed by seed, so that finished runs compare all arms at any time."""
        games = _places([game_name(game) for game in self.games], "game")
        arms = _places(self.full_names, "arm")
        return [
            StudyRun(
                game=game_name(game),
                arm=name,
                seed=seed,
                config=replace(config, env=game, seed=seed),
                directory=f"runs/{games[game_name(game)]}--{arms[full]}--seed{seed}",
            )
            for seed in self.seeds
            for game in self.games
            for name, full, config in zip(
                self.arm_names, self.full_names, self.trainings, strict=True
            )
        ]

    @cached_property
    def algorithms(self) -> list[str]:
        """The algorithms of the arms, each once, in order."""
        return list(dict.fromkeys(config.algo for config in self.trainings))

    @cached_property
    def control(self) -> str:
        """The arm that the others are compared with: the first from scratch, else the first."""
        kinds = [arm.kind for arm in self.arms]
        return self.arm_names[kinds.index("scratch") if "scratch" in kinds else 0]

    @property
    def treatments(self) -> list[str]:
        """The other arms, in order."""
        return [arm for arm in self.arm_names if arm != self.control]

    def validate(self) -> None:
        """Raises ``UserError`` for values that are not valid; it needs no environment."""
        if len(self.arms) < 2:
            named = self.arms[0].name if self.arms else "(none)"
            raise UserError(f"--arms {named} leaves nothing to compare: expected at least 2 arms")
        if not self.games:
            raise UserError('--games names no game: expected at least one, such as "Pong"')
        if len(self.seeds) < LEAST_SEEDS:
            raise UserError(
                f"--seeds {len(self.seeds)} cannot show chance: expected at least {LEAST_SEEDS},"
                " and 5 for a verdict that is more than suggestive"
            )
        if self.seeds[-1] > MAX_SEED:
            raise UserError(f"--seed {self.seeds[0]} leaves no room for {len(self.seeds)} seeds")
        if self.base.eval_episodes < 1:
            raise UserError(
                f"--eval-episodes {self.base.eval_episodes} leaves nothing to compare: expected at"
                " least 1"
            )
        for option, given in (("games", list(self.games)), ("arms", [a.text for a in self.arms])):
            for value, count in Counter(given).items():
                if count > 1:
                    raise UserError(f'--{option} names "{value}" {count} times')
        check_labels(self.labels, len(self.arms))
        trainings = []
        for arm, name, run in zip(self.arms, self.full_names, self.runs, strict=False):
            arm.validate(run.config)
            weights = run.config.weights
            # One file may be named in several ways; one that cannot be read is reported later.
            with suppress(UserError):
                weights = _digest(weights) or weights
            trainings.append((name, replace(run.config, weights=weights)))
        for (a, first), (b, second) in combinations(trainings, 2):
            if first == second:
                raise UserError(f'--arms "{a}" and "{b}" are the same training')

    def check_builds(self, runs: list[StudyRun]) -> None:
        """Builds the agent of each game and arm among ``runs`` once, and loads its weights.

        Raises:
            UserError: a game is unknown, or an arm cannot be built; the line names it.
        """
        by_env: dict[str, dict[str, TrainConfig]] = {}
        full_name = dict(zip(self.arm_names, self.full_names, strict=True))
        for run in runs:
            # Without what only matters for the place and speed of the training.
            config = replace(run.config, device="cpu", num_threads=1, compile="off", overlap="off")
            # Arms may observe a game in different ways.
            view = (config.env, config.num_envs, config.obs, config.obs_size, config.frame_stack)
            by_env.setdefault(repr(view), {}).setdefault(full_name[run.arm], config)
        for by_arm in by_env.values():
            with closing(make_train_env(next(iter(by_arm.values())).resolve())) as venv:
                for arm, config in by_arm.items():
                    try:
                        build_agent(config.resolve(), venv)
                    except UserError as error:
                        raise UserError(f'--arms "{arm}": {error}') from error

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values, with the SHA-256 of every file of weights.

        The SHA-256 of a missing file is null.

        Raises:
            UserError: a file cannot be read.
        """
        # Default batch sizes stay 0: arms may have another number of environments.
        options = self.base.to_json()
        return plain(
            {
                "games": self.games,
                "arms": [arm.text for arm in self.arms],
                **({"labels": self.labels} if self.labels else {}),
                **({"explicit": self.explicit} if self.explicit else {}),
                "weights": {arm.text: _digest(arm.weights) for arm in self.arms},
                "seeds": self.seeds,
                "options": {n: v for n, v in options.items() if n not in PER_RUN_OPTIONS},
            }
        )

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> StudyPlan:
        """Reads :meth:`to_json`; ``UserError`` if it is no plan that this release knows."""
        try:
            seeds = tuple(int(seed) for seed in document["seeds"])
            return cls(
                games=tuple(document["games"]),
                arms=tuple(parse_arm(text) for text in document["arms"]),
                seeds=seeds,
                base=TrainConfig.from_json({**document["options"], "seed": seeds[0]}),
                labels=tuple(map(str, document.get("labels", ()))),
                explicit=tuple(map(str, document.get("explicit", ()))),
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise UserError(f"it holds no plan of a study: {error!r}") from error


def with_interim_evaluations(base: TrainConfig, given: Collection[str]) -> TrainConfig:
    """``base`` with the evaluations and films of a study, except for the ``given`` options.

    A study evaluates at ten points, the last of which is the evaluation at the end. The others are
    cheap: few games, each no longer than the training between two evaluations, so that a game that
    never ends cannot stall a study. Only the last agent of each run is filmed.
    """
    every = base.eval_every if "eval_every" in given else -(-base.total_steps // EVALUATIONS)
    usual: dict[str, Any] = {
        "eval_every": every,
        "interim_episodes": min(INTERIM_GAMES, base.eval_episodes),
        "interim_max_steps": min(INTERIM_STEPS, every),
        "video_every": 0,
    }
    return replace(base, **{name: v for name, v in usual.items() if name not in given})


def parse_games(text: str) -> tuple[str, ...]:
    """Ids of the environments in ``Pong,Breakout,my_module:MyEnv-v0``.

    Raises:
        UserError: an environment is unknown; the line names the nearest.
    """
    ids = []
    for name in filter(None, map(str.strip, text.split(","))):
        if (atari := f"ALE/{name}-v5") in gym.registry:
            ids.append(atari)
            continue
        try:
            find_spec(name)
        except UserError as error:
            raise UserError(f"--games: {error}") from error
        ids.append(name)
    return tuple(ids)


def deviations(planned: TrainConfig, options: dict[str, Any]) -> list[str]:
    """The options of a run on disk that differ from the training planned, one phrase for each.

    An option that is "auto" in the plan may have any value.

    Raises:
        UserError: an option is unknown or of the wrong type.
    """
    found = TrainConfig.from_json(options).with_defaults().to_json()
    plan = {
        name: found[name] if value == "auto" else value
        for name, value in planned.with_defaults().to_json().items()
    }
    return list(_differing(found, plan, ""))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The options in which two plans (:meth:`StudyPlan.to_json`) differ, one phrase for each.

    A default batch size counts as its number.
    """
    found = [
        f"--{name} {_listed(before.get(name))} there, {_listed(now[name])} here"
        for name in ("games", "arms", "seeds")
        if before.get(name) != now[name]
    ]
    if before.get("arms") == now["arms"] and before.get("weights") != now["weights"]:
        digests = before.get("weights") or {}
        # Only runs that have not begun need the file, which may be deleted by now.
        found += [
            f"the weights of {arm} have changed since"
            for arm, digest in now["weights"].items()
            if digest not in (None, digests.get(arm))
        ]
    there, here = (set(each.get("explicit", ())) for each in (before, now))
    found += [
        f"--{name.replace('_', '-')} {'given there, not here' if name in there else 'given here'}"
        for name in sorted(there ^ here)
    ]
    return found + option_differences(before.get("options") or {}, now["options"])


def option_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The options of ``now``, as JSON, that differ from those before, one phrase for each.

    A default batch size counts as its number. An option that ``before`` lacks had its default.
    """
    then, here = (
        TrainConfig.from_json(options).with_batch_size().to_json() for options in (before, now)
    )
    return list(_differing({name: then[name] for name in now}, {n: here[n] for n in now}, ""))


def _differing(before: dict[str, Any], now: dict[str, Any], prefix: str) -> Iterator[str]:
    for name in [*now, *(name for name in before if name not in now)]:
        then, value = before.get(name), now.get(name)
        if then == value or (not prefix and name in RUNTIME_OPTIONS):
            continue
        if isinstance(then, dict) and isinstance(value, dict) and name in ALGORITHMS:
            yield from _differing(then, value, f"{name}.")
        else:
            yield f"--{prefix}{name.replace('_', '-')} {then} there, {value} here"


def _listed(value: Any) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _digest(weights: str) -> str | None:
    if weights in ("none", "imagenet") or not os.path.exists(weights):
        return None
    path = weights_file(Path(weights))
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror or error}') from error


def _places(names: Sequence[str], what: str) -> dict[str, str]:
    """Each name's form in a path; a number makes equal forms different."""
    places = {name: directory_name(name) for name in names}
    counts = Counter(places.values())
    return {
        name: place if counts[place] == 1 else f"{place}-{what}{number}"
        for number, (name, place) in enumerate(places.items(), start=1)
    }
