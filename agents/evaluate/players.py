"""Trained agents that play games for an encoder to be pretrained on their frames."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.config import read_config
from agents.evaluate.evaluation import EvaluationPolicy
from agents.train.builder import load_agent
from envs.errors import UserError
from envs.protocol import get_protocol
from envs.registry import game_name
from rlcnn.data.atari.options import FrameOptions, PolicyPlay
from rlcnn.runs.directory import RunDirectory


def load_players(
    run_dirs: Sequence[str], frames: FrameOptions, seed: int, device: str = "auto"
) -> dict[str, PolicyPlay]:
    """The agents of runs, by the game that each was trained on, such as "Pong".

    The newest whole checkpoint of each run plays as :func:`rlcnn.data.atari.dataset.play_frames`
    plays, and chooses actions as in evaluations, with ``seed`` for its random choices.

    Raises:
        UserError: a run is missing, damaged or of no Atari game; two are of one game; or an agent
            was trained with other observations or actions than ``frames`` has.
    """
    players: dict[str, PolicyPlay] = {}
    for run_dir in run_dirs:
        config = read_config(RunDirectory.open(run_dir))
        if not config.env.startswith("ALE/"):
            raise UserError(f'the agent of "{run_dir}" plays no game of ALE: "{config.env}"')
        if config.environment.is_changed:
            raise UserError(
                f'the agent of "{run_dir}" learned a game changed by --env-kwargs, --env-wrapper or'
                " --obs-key: frames are collected from unchanged games only"
            )
        for name in ("obs", "obs_size", "frame_stack"):
            own, asked = getattr(config, name), getattr(frames, name)
            if own != asked:
                option = name.replace("_", "-")
                raise UserError(
                    f'the agent of "{run_dir}" was trained with --{option} {own}, not'
                    f" {asked}: give --frames.{option} {own}"
                )
        buttons = [get_protocol(each.protocol).full_action_space for each in (config, frames)]
        if buttons[0] != buttons[1]:
            raise UserError(
                f'the agent of "{run_dir}" has the actions of --protocol {config.protocol}, not of'
                f" --frames.protocol {frames.protocol}"
            )
        game = game_name(config.env)
        if game in players:
            raise UserError(f'two agents are to play "{game}": give one')
        model = load_agent(run_dir, device=device)
        model.policy.set_training_mode(False)
        players[game] = PolicyPlay(EvaluationPolicy(model, seed), name=_fingerprint(model))
    return players


def _fingerprint(model: BaseAlgorithm) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.policy.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
