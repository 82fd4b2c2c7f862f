"""A pretrained encoder beside baselines on the held-out images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from rlcnn.supervised.evaluation.baselines import Baseline, fit_baselines, fit_linear
from rlcnn.supervised.evaluation.gains import Gains, gains
from rlcnn.supervised.evaluation.metrics import right_by_task
from rlcnn.supervised.setup import PretrainingSetup
from rlcnn.supervised.trainer import Trainer


class Comparison(NamedTuple):
    """Results of the baselines by name, and the gain over each.

    ``probe`` is a linear classifier on the features of an encoder that was trained without labels,
    which is then compared; None if the trained network classifies.
    """

    probe: Baseline | None
    baselines: dict[str, Baseline]
    gains: dict[str, Gains]


def compare(setup: PretrainingSetup, trainer: Trainer, report: Callable[[str], None]) -> Comparison:
    """Fits the baselines, and a probe where the network does not classify.

    ``report`` gets a line before that.
    """
    config, train, test = setup.config, setup.train, setup.test
    images = test.images
    if not (images.labels >= 0).any():
        report("no baselines: no held-out image has a label")
        return Comparison(None, {}, {})
    drawn = ""
    if config.baseline_images:
        each = " of each game" if train.images.episodes else ""
        drawn = f", on at most {config.baseline_images:,} training images{each}"
    report(f"fitting the baselines{drawn}")
    # Another seed: the trained encoder should not be compared with its own start.
    untrained = setup.make_encoder(config.seed + 1).to(trainer.device)
    seed, most = config.seed, config.baseline_images
    baselines = fit_baselines(untrained, train, test, seed=seed, most=most)
    probe, logits = None, trainer.held_out_logits(test)
    if logits is not None:
        own = right_by_task(logits, images.labels)
    else:
        probe = fit_linear(trainer.evaluated.encoder, train, test, seed=seed, most=most)
        own = probe.right
    return Comparison(probe, baselines, _gains(own, baselines, setup))


def _gains(
    own: torch.Tensor, baselines: dict[str, Baseline], setup: PretrainingSetup
) -> dict[str, Gains]:
    """The gain over each baseline of correct answers, bool (images, tasks)."""
    test = setup.test.images
    return {
        name: gains(own, baseline.right, test.labels, test.tasks, test.episodes)
        for name, baseline in baselines.items()
    }
