"""An encoder with one or more objectives that it learns from sequences."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from rlcnn.data.batches import Batches
from rlcnn.encoders import Encoder
from rlcnn.encoders.preprocessing import Preprocessing
from rlcnn.selfsupervised.sequences import SequenceBatches
from rlcnn.selfsupervised.views import Objective, SequenceBatch, Views, follow, make_target
from rlcnn.supervised.classifier import Classifier
from rlcnn.supervised.network import Measures, PretrainingNetwork
from rlcnn.weights.load import save_encoder


class Classification(Objective):
    """Classifies the first observation of each sequence: the objective of labelled images."""

    offsets = (0,)

    def __init__(self, classifier: Classifier) -> None:
        """``classifier`` has the encoder of the views."""
        super().__init__()
        self.classifier = classifier
        self.measured = classifier.measured

    def measure(self, views: Views) -> Measures:
        return self.classifier.measure_features(views.features(0), views.batch.labels)


class SelfSupervisedNetwork(PretrainingNetwork):
    """An encoder, its target and objectives; the loss is the weighted sum of the objectives'.

    The target is a moving average of the encoder, in evaluation mode.

    Attributes:
        target: the target encoder.
        objectives: by name.
    """

    def __init__(
        self,
        encoder: Encoder,
        objectives: Mapping[str, tuple[Objective, float]],
        *,
        target_decay: float = 0.99,
    ) -> None:
        """``objectives`` are by name, each with its weight."""
        super().__init__()
        self.encoder = encoder
        for module in encoder.modules():
            if isinstance(module, Preprocessing):
                # Augmented pixels are not rounded.
                module.takes_floats = True
        self.target = cast(Encoder, make_target(encoder))
        self.objectives = nn.ModuleDict({name: each for name, (each, _) in objectives.items()})
        self._weights = {name: weight for name, (_, weight) in objectives.items()}
        self._decay = target_decay
        names: list[str] = []
        for name, objective in self._named():
            names += [name, *objective.measured]
        self.measured = tuple(names)

    @property
    def offsets(self) -> tuple[int, ...]:
        """The observations of a sequence that the objectives use, as steps after the first."""
        offsets = {offset for _, objective in self._named() for offset in objective.offsets}
        return tuple(sorted(offsets))

    def train(self, mode: bool = True) -> SelfSupervisedNetwork:
        super().train(mode)
        self.target.eval()
        return self

    def measure(self, batch: SequenceBatch) -> Measures:
        """The weighted loss of a minibatch, each objective's loss, and what it measures."""
        views = Views(self.encoder, self.target, batch)
        total, ratios = torch.zeros((), device=batch.labels.device), []
        for name, objective in self._named():
            loss, own = objective.measure(views)
            total = total + self._weights[name] * loss
            ratios += [(loss.detach(), torch.ones_like(loss)), *own]
        return Measures(total, ratios)

    def after_update(self) -> None:
        follow(self.target, self.encoder, self._decay)
        for _, objective in self._named():
            objective.after_update()

    def evaluate(self, test: SequenceBatches) -> dict[str, float]:
        """Losses and ratios on the held-out sequences, without augmentation.

        Beside them is ``test/feature_distance``, the mean of 1 - cosine over pairs of observations'
        features: 0 if all observations have the same.
        """
        sums: list[torch.Tensor] = []
        directions, count = torch.zeros((), device=test.device), 0
        for batch in test.held_out():
            loss, ratios = self.measure(batch)
            parts = [loss, torch.ones_like(loss), *(part for pair in ratios for part in pair)]
            sums.append(torch.stack([part.double() for part in parts]))
            unit = F.normalize(self.encoder(batch.at(0)).double(), dim=1)
            directions, count = directions + unit.sum(dim=0), count + len(unit)
        values = torch.stack(sums).sum(dim=0).tolist()
        figures = {
            f"test/{name}": numerator / max(1, denominator)
            for name, numerator, denominator in zip(
                ("loss", *self.measured), values[::2], values[1::2], strict=True
            )
        }
        if (classification := self._classification()) is not None:
            found = classification.classifier.evaluate(test.singles)
            figures |= {name: value for name, value in found.items() if name != "test/loss"}
        mean = directions / count
        return figures | {"test/feature_distance": 1 - mean.square().sum().item()}

    def held_out_logits(self, test: Batches) -> tuple[torch.Tensor, ...] | None:
        classification = self._classification()
        return None if classification is None else classification.classifier.held_out_logits(test)

    def save(self, path: str | PathLike[str], about: Mapping[str, Any]) -> None:
        """As the classifier, if there is one; otherwise the encoder alone."""
        if (classification := self._classification()) is not None:
            classification.classifier.save(path, about)
        else:
            save_encoder(self.encoder, path, about)

    def _named(self) -> list[tuple[str, Objective]]:
        return [(name, cast(Objective, module)) for name, module in self.objectives.items()]

    def _classification(self) -> Classification | None:
        found = [each for _, each in self._named() if isinstance(each, Classification)]
        return found[0] if found else None
