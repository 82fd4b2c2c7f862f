"""Networks and minibatches of sequences of a pretraining configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rlcnn.data.batches import Batches
from rlcnn.data.images import Task
from rlcnn.encoders import Encoder
from rlcnn.selfsupervised.contrastive import TemporalContrast
from rlcnn.selfsupervised.inverse import InverseDynamics
from rlcnn.selfsupervised.network import Classification, SelfSupervisedNetwork
from rlcnn.selfsupervised.options import ObjectiveName
from rlcnn.selfsupervised.sequences import SequenceBatches
from rlcnn.selfsupervised.spr import SPR
from rlcnn.selfsupervised.views import Objective
from rlcnn.supervised.classifier import Classifier
from rlcnn.supervised.config import PretrainConfig


@dataclass(frozen=True)
class Parts:
    """What objectives are made of; ``actions`` is the number of different actions."""

    config: PretrainConfig
    encoder: Encoder
    tasks: Sequence[Task]
    actions: int


def _classification(parts: Parts) -> Objective:
    config = parts.config
    return Classification(
        Classifier(
            parts.encoder,
            parts.tasks,
            dropout=config.dropout,
            label_smoothing=config.label_smoothing,
        )
    )


_MAKERS: dict[ObjectiveName, Callable[[Parts], Objective]] = {
    "classify": _classification,
    "spr": lambda parts: SPR(parts.encoder, parts.actions, jumps=parts.config.jumps),
    "inverse": lambda parts: InverseDynamics(parts.encoder, parts.actions),
    "contrastive": lambda parts: TemporalContrast(
        parts.encoder, steps=parts.config.contrast_steps, decay=parts.config.target_decay
    ),
}


def make_network(parts: Parts) -> SelfSupervisedNetwork:
    """The network of a configuration's objectives; draws its new layers from torch's generator.

    Raises:
        UserError: an objective does not fit the encoder.
    """
    config = parts.config
    weighted: dict[str, tuple[Objective, float]] = {
        name: (_MAKERS[name](parts), weight) for name, weight in config.weights_by_objective.items()
    }
    return SelfSupervisedNetwork(parts.encoder, weighted, target_decay=config.target_decay)


def sequences_of(
    singles: Batches, network: SelfSupervisedNetwork, config: PretrainConfig
) -> SequenceBatches:
    """The sequences in single observations that a network learns from.

    Raises:
        UserError: there are fewer than two.
    """
    return SequenceBatches(
        singles,
        network.offsets,
        batch_size=config.batch_size,
        seed=config.seed,
        device=torch.device(config.device),
    )
