"""Classifiers evaluated on labelled images, from the options to the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device
from rlcnn.config.fields import from_json
from rlcnn.data.atari.options import FrameOptions, LoadPolicies
from rlcnn.data.by_name import check_held_out, load_data
from rlcnn.data.images import JoinedImages, LabelledImages
from rlcnn.data.label_file import load_labelled_files
from rlcnn.data.names import ATARI, FOLDER
from rlcnn.runs.progress import ProgressDisplay, waiting
from rlcnn.runs.provenance import provenance
from rlcnn.supervised.evaluation.assessment import Assessment, assess, check_channels
from rlcnn.supervised.evaluation.networks import Network, load_network
from rlcnn.supervised.evaluation.options import EvaluationConfig
from rlcnn.supervised.evaluation.word_vectors import load_word_vectors
from rlcnn.supervised.evaluation.zero_shot import TOP, assess_unseen
from rlcnn.supervised.setup import CHANNELS
from rlcnn.visualize.errors import write_error_plots


@dataclass(frozen=True)
class ClassifierEvaluation:
    """The evaluation of classifiers: what was evaluated on what, and the results."""

    config: EvaluationConfig
    networks: list[Network]
    images: LabelledImages
    assessment: Assessment

    def lines(self) -> list[str]:
        """The result as lines of text."""
        assessment = self.assessment
        crops = "the middle of each" if assessment.crops == 1 else "10 crops of each"
        lines = [f"images: {len(assessment.indices):,} ({crops})"]
        together = assessment.together.summary()
        if len(assessment.members) == 1:
            return [*lines, *together]
        for weights, member in zip(self.config.weights, assessment.members, strict=True):
            lines.append(f"{weights}: {', '.join(member.summary())}")
        return [*lines, f"together: {', '.join(together)}"]

    def to_json(self) -> dict[str, Any]:
        """Everything about the result as JSON values."""
        config = self.config
        sides = ("height", "width", "resize", "pad", "interpolation")
        return {
            "networks": [
                {
                    "weights": network.source,
                    "encoder": config.encoder,
                    **{side: getattr(network.transform, side) for side in sides},
                }
                for network in self.networks
            ],
            "data": config.data or self.networks[0].training.get("data"),
            "labels": config.labels,
            "word_vectors": config.word_vectors,
            "part": None if config.labels else config.part or "test",
            **self.assessment.to_json(),
            "provenance": provenance(),
        }

    def write_plots(self, directory: Path) -> list[Path]:
        """Writes pictures of the errors; their paths."""

        def classified(index: int) -> torch.Tensor:
            return self.networks[0].transform.centre(self.images[index])[0]

        return write_error_plots(self.assessment, classified, directory, self.images.name)


def evaluate_classifiers(
    config: EvaluationConfig, load_policies: LoadPolicies, console: Console
) -> ClassifierEvaluation:
    """Evaluates the networks of a valid configuration.

    ``load_policies`` loads the agents that played the games of a run's own data. ``console`` shows
    what is loaded, and progress.

    Raises:
        UserError: for weights or images that do not fit each other or do not exist, and for images
            that a network learned from.
    """
    device = resolve_device(config.device)
    vectors = None
    if config.word_vectors is not None:
        # First: networks and images take longer to load than a wrong file to be found.
        with waiting(console, f"reading {config.word_vectors}"):
            vectors = load_word_vectors(config.word_vectors)
    networks = [
        load_network(weights, config.encoder, size=config.size, resize=config.resize, device=device)
        for weights in config.weights
    ]
    for network in networks:
        console.print(network.report)
    images = _load_images(config, networks, load_policies)
    if config.labels is None:
        data = config.data or networks[0].training.get("data")
        networks = [network.prepared_for(data, images) for network in networks]
    with ProgressDisplay(console) as display:
        shown = display.add("evaluating", len(images))
        options: dict[str, Any] = {
            "crops": config.crops,
            "task": config.task,
            "batch_size": config.batch_size,
            "device": device,
            "on_images": shown.advance,
        }
        if vectors is None:
            assessment = assess(networks, images, **options)
        else:
            assessment = assess_unseen(
                networks,
                images,
                vectors,
                top=config.conse_top or TOP,
                report=console.print,
                **options,
            )
    return ClassifierEvaluation(config, networks, images, assessment)


def _load_images(
    config: EvaluationConfig, networks: list[Network], load_policies: LoadPolicies
) -> LabelledImages:
    network = networks[0]
    trained = network.training
    if config.labels is not None and config.data is not None:
        directory = Path(config.data.removeprefix(FOLDER))
        channels = config.channels or (1 if network.channels == 1 else 3)
        if config.task is None and len(network.tasks) > 1:
            names = " or ".join(task.name for task in network.tasks)
            raise UserError(f"the network has several tasks: give --task {names}")
        task = network.tasks[network.task(config.task or network.tasks[0].name)]
        return load_labelled_files(config.labels, directory, task, channels=channels)
    data = config.data or trained.get("data")
    if data is None:
        raise UserError(
            f'"{network.source}" does not name its training data: give --data {FOLDER}DIR'
        )
    # Another seed would hold out other images, some of them from the training.
    seed = config.seed if config.seed is not None else trained.get("seed", 0)
    if config.part in (None, "test"):
        for member in networks:
            check_held_out(data, seed, member.training, member.source)
    colours = CHANNELS.get(trained.get("colours", "auto"))
    of_games = any("/" in task.name for task in network.tasks)
    if data.startswith(ATARI) and not of_games:
        # Before games are played, which takes minutes.
        raise UserError(
            f'--data "{data}" has labels of games, but "{network.source}" was not trained on any:'
            " expected a run that was trained on atari: data"
        )
    # Observations as in the network's training, also of other games.
    frames = from_json(FrameOptions, trained.get("frames", {}), "frames.")
    # Played by the same agents, if the games are the same.
    players = trained.get("players", ()) if data == trained.get("data") else ()
    split = load_data(
        data,
        config.data_dir or Path(trained.get("data_dir", "data")),
        seed=seed,
        channels=config.channels or (colours if data == trained.get("data") else None),
        frames=frames,
        policies=load_policies(players, frames, seed),
    )
    if config.part == "all":
        for images in split:
            check_channels(images.channels, network)
        return JoinedImages(split)
    return split.train if config.part == "train" else split.test
