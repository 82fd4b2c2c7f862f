"""The learning rate over a run, the loss, and what decays."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rlcnn.data.images import UNKNOWN
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.optimization import classification_loss, learning_rate, make_optimizer
from rlcnn.supervised.recipes import recipe_config

CONFIG = PretrainConfig(optimizer="sgd", epochs=10, learning_rate=0.4, warmup_epochs=2.0)


def rates(config: PretrainConfig, steps_per_epoch: int = 5) -> list[float]:
    steps = range(config.epochs * steps_per_epoch)
    return [learning_rate(config, step, steps_per_epoch) for step in steps]


def test_the_rate_rises_to_its_greatest_value_and_no_further() -> None:
    for schedule in ("constant", "linear", "cosine", "steps"):
        found = rates(replace(CONFIG, schedule=schedule))
        assert found[:10] == pytest.approx([0.04 * (step + 1) for step in range(10)])
        assert max(found) == pytest.approx(0.4)


def test_each_schedule_falls_as_it_is_defined() -> None:
    assert set(rates(replace(CONFIG, schedule="constant"))[10:]) == {0.4}
    linear = rates(replace(CONFIG, schedule="linear"))
    assert linear[10:] == pytest.approx([0.4 * (1 - step / 40) for step in range(40)])
    cosine = rates(replace(CONFIG, schedule="cosine"))
    expected = [0.2 * (1 + math.cos(math.pi * step / 40)) for step in range(40)]
    assert cosine[10:] == pytest.approx(expected)


def test_the_residual_networks_rate_falls_at_32000_and_48000_updates() -> None:
    config = recipe_config("resnet-cifar-2016")
    # 391 updates of 128 in 50,000 images: 164 epochs are 64,124 updates.
    found = rates(config, 391)
    falls = [step for step in range(1, len(found)) if found[step] != found[step - 1]]
    assert falls == pytest.approx([32_000, 48_000], abs=100)
    assert [found[step] for step in (0, falls[0], falls[1])] == pytest.approx([0.1, 0.01, 0.001])


def test_a_run_of_one_update_learns() -> None:
    for schedule in ("constant", "linear", "cosine", "steps"):
        config = replace(CONFIG, epochs=1, warmup_epochs=0.0, schedule=schedule)
        assert learning_rate(config, 0, 1) == pytest.approx(0.4)


def test_the_loss_is_the_mean_over_tasks_of_what_is_known() -> None:
    random = torch.Generator().manual_seed(0)
    logits = [torch.randn(4, classes, generator=random) for classes in (3, 2)]
    labels = torch.tensor([[0, 1], [2, UNKNOWN], [UNKNOWN, UNKNOWN], [1, 0]])
    first = F.cross_entropy(logits[0][[0, 1, 3]], torch.tensor([0, 2, 1]), label_smoothing=0.1)
    second = F.cross_entropy(logits[1][[0, 3]], torch.tensor([1, 0]), label_smoothing=0.1)
    loss = classification_loss(logits, labels, 0.1)
    assert loss.item() == pytest.approx(((first + second) / 2).item())


def test_a_task_that_nothing_is_known_of_teaches_nothing() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    loss = classification_loss([logits], torch.full((3, 1), UNKNOWN), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_biases_and_normalisation_decay_only_where_all_does() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    for decay_all, decaying in ((True, 6), (False, 2)):
        config = replace(CONFIG, weight_decay=0.1, decay_all=decay_all)
        groups = make_optimizer(network, config).param_groups
        assert sum(len(g["params"]) for g in groups) == 6
        assert sum(len(g["params"]) for g in groups if g["weight_decay"] == 0.1) == decaying


def test_options_reach_the_optimiser() -> None:
    network = nn.Linear(2, 2)
    sgd = make_optimizer(network, replace(CONFIG, momentum=0.8, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    adamw = make_optimizer(network, replace(CONFIG, optimizer="adamw", momentum=0.8))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["betas"] == (0.8, 0.999)
