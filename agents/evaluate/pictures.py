"""What pictures of a run show: its network, and frames of its agent's own play."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.config import TrainConfig, read_config
from agents.evaluate.evaluation import (
    EvaluationPolicy,
    inference,
    make_play_env,
    play_protocol,
)
from agents.evaluate.overlay import action_scores
from agents.evaluate.players import load_players
from agents.registry import algorithm_of
from agents.seeding import derive_seed
from agents.train.builder import load_agent
from envs.errors import UserError
from envs.registry import atari_rom, game_name
from rlcnn.data.atari.emulator import minimal_actions
from rlcnn.data.images import Split, StoredImages, Task
from rlcnn.data.names import ATARI
from rlcnn.runs.directory import RunDirectory
from rlcnn.visualize.gallery.options import PictureConfig
from rlcnn.visualize.gallery.source import Explained, PlayedGame, Source

_ENVIRONMENTS = 8
# An agent that repeats itself shows few different observations.
_MOST_STEPS_EACH = 20
_LONGEST_GAME = 1_000  # steps


def make_source(config: PictureConfig) -> Source:
    """What the pictures of a configuration are made from.

    ``--run`` fills in the network, and the images where none are named. A run of
    ``pretrain_encoder.py`` has those that its network was trained on. An agent's are frames of its
    own play: of a game of ALE with all its labels, of another game see :func:`own_frames`.

    Raises:
        UserError: the run is missing or damaged, or ``--data`` are not frames of the game whose
            actions are explained.
    """
    if config.run is None:
        return Source(config, load_players)
    run_dir, run = config.run, RunDirectory.open(config.run)
    if "config" not in run.config:
        data_dir = Path(run.config.get("pretraining", {}).get("data_dir", "data"))
        config = replace(config, weights=str(run_dir), data_dir=config.data_dir or data_dir)
        return Source(config, load_players)
    trained = read_config(run)
    _check_game(config, trained)
    frames = replace(
        config.frames,
        obs=trained.obs,
        obs_size=trained.obs_size,
        frame_stack=trained.frame_stack,
        protocol=trained.protocol,
    )
    config = replace(
        config,
        weights=str(run_dir),
        encoder=trained.encoder,
        encoder_options={**trained.encoder_options, **config.encoder_options},
        frames=frames,
    )
    own_images = None
    if config.data is None:
        if game := _own_game(trained):
            config = replace(config, data=game, players=(str(run_dir),))
        else:
            counts = (frames.train_frames, frames.test_frames)
            own_images = partial(own_frames, run_dir, trained, counts, config.seed)
    return Source(config, load_players, own_images, partial(explained_agent, run_dir, trained))


def _own_game(trained: TrainConfig) -> str | None:
    """The name of an agent's game as data; None for a game without such data."""
    if trained.env.startswith("ALE/") and not trained.environment.is_changed:
        return f"{ATARI}{game_name(trained.env)}"
    return None


def _check_game(config: PictureConfig, trained: TrainConfig) -> None:
    explained = [name for name in config.pictures if name in ("saliency", "strip")]
    if explained and config.data not in (None, _own_game(trained)):
        raise UserError(
            f'{explained[0]} explains actions of an agent of "{trained.env}", but --data is'
            f' "{config.data}": leave out --data, which shows frames of its own play'
        )


@contextmanager
def explained_agent(run_dir: Path, trained: TrainConfig) -> Iterator[Explained]:
    """An agent's log probabilities or Q values of its actions, to be explained."""
    model = load_agent(run_dir, device="cpu")
    algorithm = algorithm_of(model)
    network: Any = algorithm.trained_network(model)
    count = int(model.action_space.n)  # type: ignore[union-attr]
    names = tuple(f"action {index}" for index in range(count))
    if trained.env.startswith("ALE/"):
        named = minimal_actions(atari_rom(trained.env))
        # Other protocols have all 18 buttons.
        names = named if len(named) == count else names
    with action_scores(model) as scores_of:
        yield Explained(
            lambda pixels: scores_of(pixels).scores,
            network.features_extractor.encoder,
            names,
            "Q value" if algorithm.action_values else "log probability",
            3 if trained.obs == "rgb" else 1,
            play=partial(play_game, model, trained),
        )


def play_game(model: Any, trained: TrainConfig, seed: int) -> PlayedGame:
    """A game, or its first 1,000 steps, as an evaluation plays it."""
    game_seed = derive_seed(seed, "film")
    policy = EvaluationPolicy(model, game_seed)
    steps: list[tuple[np.ndarray, int, float]] = []
    made = make_play_env(trained, 1, play_protocol(trained), game_seed)
    with closing(made) as venv, inference(model):
        observations, over = venv.reset(), False
        while not over and len(steps) < _LONGEST_GAME:
            assert isinstance(observations, np.ndarray)
            seen, chosen = observations[0].copy(), policy(observations)
            observations, rewards, dones, _ = venv.step(chosen)
            steps.append((seen, int(chosen[0]), float(rewards[0])))
            over = bool(dones[0])
    seen, actions, rewards = zip(*steps, strict=True)
    return PlayedGame(
        torch.from_numpy(np.stack(seen)), torch.tensor(actions), torch.tensor(rewards)
    )


def own_frames(run_dir: Path, trained: TrainConfig, counts: tuple[int, int], seed: int) -> Split:
    """Different observations of an agent's own play, labelled with the action that it chose.

    ``counts`` are those for training and held out, which come from games with other seeds; fewer
    if the agent sees no more different ones.

    Raises:
        UserError: the run has no agent, or the game cannot be made.
    """
    model = load_agent(run_dir)
    actions = int(model.action_space.n)  # type: ignore[union-attr]
    if actions < 2:
        raise UserError(f'the agent of "{run_dir}" has one action alone: nothing to label by')
    task = Task("action", tuple(map(str, range(actions))))
    parts: list[StoredImages] = []
    for number, count in enumerate(counts):
        game_seed = derive_seed(seed, "evaluate", number)
        policy = EvaluationPolicy(model, game_seed)
        made = make_play_env(trained, _ENVIRONMENTS, play_protocol(trained), game_seed)
        found: dict[bytes, tuple[np.ndarray, int]] = {}
        with closing(made) as venv, inference(model):
            observations = venv.reset()
            for _ in range(_MOST_STEPS_EACH * -(-count // _ENVIRONMENTS)):
                assert isinstance(observations, np.ndarray)
                chosen = policy(observations)
                for observation, action in zip(observations, chosen, strict=True):
                    found.setdefault(observation.tobytes(), (observation.copy(), int(action)))
                if len(found) >= count:
                    break
                observations, *_ = venv.step(chosen)
        images, labels = zip(*list(found.values())[:count], strict=True)
        pixels = torch.from_numpy(np.stack(images))
        parts.append(StoredImages(pixels, torch.tensor(labels), [task]))
    return Split(*parts)
