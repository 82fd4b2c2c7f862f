"""How a training appears beside others in Weights & Biases and trackio."""

from __future__ import annotations

from agents.config import TrainConfig
from agents.registry import ALGORITHMS
from envs.registry import game_name
from rlcnn.runs.tracker import RunCard


def card_of(config: TrainConfig) -> RunCard:
    """Options in effect, group and tags: trainings of one group differ in their seeds alone.

    They may differ in hyperparameters, too, by which the service can group its runs itself.
    """
    game = game_name(config.env)
    options = (f"{name}={value}" for name, value in config.encoder_options.items())
    start = "" if config.weights == "none" else f"@{config.weights}"
    return RunCard(
        options={
            name: value
            for name, value in config.to_json().items()
            # The other algorithms' hyperparameters have no effect.
            if name not in ALGORITHMS or name == config.algo
        },
        job_type="train",
        group="-".join((game, config.algo, ",".join((config.encoder, *options)), config.mode))
        + start,
        tags=(config.algo, game, config.encoder, config.mode),
    )
