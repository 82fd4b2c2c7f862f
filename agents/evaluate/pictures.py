"""What pictures of a run show: its network, and frames of its agent's own play."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agents.config import read_config
from envs.errors import UserError
from envs.registry import game_name
from rlcnn.data.names import ATARI
from rlcnn.runs.directory import RunDirectory
from rlcnn.visualize.options import PictureConfig


def config_of_run(config: PictureConfig, run_dir: Path) -> PictureConfig:
    """The options of pictures with a run's network and images for those that are not given.

    An agent's images are frames of its own play. A run of ``pretrain_encoder.py`` has those that
    its network was trained on.

    Raises:
        UserError: the run is missing or damaged, or plays no game of ALE and no images are named.
    """
    run = RunDirectory.open(run_dir)
    if "config" not in run.config:
        return replace(config, weights=str(run_dir))
    trained = read_config(run)
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
    if config.data is not None:
        return config
    if not trained.env.startswith("ALE/"):
        raise UserError(
            f'the agent of "{run_dir}" plays no game of ALE ("{trained.env}"), of which frames are'
            " collected: give --data"
        )
    return replace(config, data=f"{ATARI}{game_name(trained.env)}", players=(str(run_dir),))
