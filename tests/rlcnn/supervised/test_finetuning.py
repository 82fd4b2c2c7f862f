"""A pretrained encoder that is fine-tuned or frozen while a classifier learns on its features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.picture_files import refused
from support.run_files import rows_of, weights_of

from rlcnn.runs.stopping import TrainingStopped
from rlcnn.supervised import setup
from rlcnn.supervised.config import AugmentConfig, PretrainConfig
from rlcnn.supervised.description import describe_pretraining
from rlcnn.supervised.pretraining import pretrain, resume_pretraining
from rlcnn.supervised.setup import PretrainingSetup, load_images
from rlcnn.supervised.trainer import Trainer


@pytest.fixture
def config(pretraining_config: PretrainConfig) -> PretrainConfig:
    """A small residual network with all that has a state; fine-tuned."""
    return replace(
        pretraining_config,
        encoder="cifar_resnet",
        encoder_options={"depth": 8},
        mode="finetune",
        optimizer="adamw",
        learning_rate=0.01,
        epochs=2,
    )


def trainer_of(config: PretrainConfig) -> Trainer:
    config.validate()
    config = config.resolve()
    made = PretrainingSetup(config, load_images(config, lambda line: None))
    return made.make_trainer(made.make_encoder(config.seed))


def changes(trainer: Trainer, updates: int = 1) -> dict[str, torch.Tensor]:
    """How the network's tensors change in a few updates; those that do not are left out."""
    before = {name: t.clone() for name, t in trainer.network.state_dict().items()}
    for _, _ in zip(range(updates), trainer.learn_epoch(), strict=False):
        pass
    after = trainer.network.state_dict()
    return {n: after[n] - t for n, t in before.items() if not torch.equal(after[n], t)}


def test_the_encoder_learns_at_its_factor_of_the_rate_and_the_head_at_all_of_it(
    config: PretrainConfig,
) -> None:
    # Without momentum and decay, an update is the gradient times the rate.
    plain = replace(
        config,
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
        dropout=0.0,
        augment=AugmentConfig(),
        schedule="constant",
    )
    whole = changes(trainer_of(replace(plain, mode="train")))
    tuned = {
        factor: changes(trainer_of(replace(plain, finetune_factor=factor)))
        for factor in (None, 0.01)
    }
    parameters = dict(trainer_of(plain).network.named_parameters())
    for factor, found in tuned.items():
        assert found.keys() == whole.keys()
        for name in found.keys() & parameters.keys():
            expected = 1.0 if name.startswith("head.") else factor or 0.1
            ratio = (found[name].norm() / whole[name].norm()).item()
            assert ratio == pytest.approx(expected, rel=0.02), name


def test_the_factor_holds_while_the_rate_changes(config: PretrainConfig) -> None:
    trainer = trainer_of(replace(config, warmup_epochs=0.5, finetune_factor=0.2))
    seen = set()
    for _ in trainer.learn_epoch():
        groups = trainer._optimizer.param_groups
        rates = {group["lr_factor"]: group["lr"] for group in groups}
        assert rates[0.2] == pytest.approx(0.2 * rates[1.0])
        # Each part has weights, which decay, and others, which do not.
        assert sorted({(g["lr_factor"], g["weight_decay"]) for g in groups}) == [
            (0.2, 0.0),
            (0.2, 0.01),
            (1.0, 0.0),
            (1.0, 0.01),
        ]
        seen.add(rates[1.0])
    assert len(seen) > 3


def test_a_published_networks_new_projection_learns_at_the_full_rate(
    config: PretrainConfig,
) -> None:
    options = {"projection": "learned", "features_dim": 4, "pooling": "mean", "resize": 32}
    published = replace(config, encoder="squeezenet1_1", encoder_options=options)
    trainer = trainer_of(published)
    full = {
        id(p) for g in trainer._optimizer.param_groups if g["lr_factor"] == 1 for p in g["params"]
    }
    named = {
        n.split(".")[0] + "." + n.split(".")[1]: p for n, p in trainer.network.named_parameters()
    }
    assert {name for name, p in named.items() if id(p) in full} == {
        "encoder.projection",
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize(
    "mode, node, learned",
    [
        ("finetune", "trunk.stage3", ("encoder.trunk.stage3.", "head.")),
        ("frozen", "", ("head.",)),
    ],
)
def test_frozen_layers_do_not_change(
    mode: Any, node: str, learned: tuple[str, ...], config: PretrainConfig
) -> None:
    trainer = trainer_of(replace(config, mode=mode, unfreeze_from=node, weight_decay=0.5))
    initial = {n: t.clone() for n, t in trainer.evaluated.state_dict().items()}
    # BatchNorm's running statistics, too.
    assert changes(trainer, 5).keys() == {n for n in initial if n.startswith(learned)}
    # Nor do they in the moving average, and an evaluation does not unfreeze them.
    trainer.evaluate()
    changes(trainer, 5)
    averaged = trainer.evaluated.state_dict()
    assert trainer.evaluated is not trainer.network
    moved = {n for n, t in averaged.items() if not torch.equal(t, initial[n])}
    assert moved == {n for n in initial if n.startswith(learned)}


class _Stops(Trainer):
    """Stops after one update of the second epoch."""

    def _update(self, batch: Any) -> None:
        super()._update(batch)
        if self.step == 5:
            import signal

            signal.raise_signal(signal.SIGINT)


def test_a_fine_tuning_goes_on_as_if_it_had_not_stopped(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, unfreeze_from="trunk.stage2")
    whole = pretrain(config, tmp_path / "whole")
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(setup, "Trainer", _Stops)
        with pytest.raises(TrainingStopped):
            pretrain(config, run)
    resume_pretraining(run)
    assert rows_of(run) == rows_of(whole)
    for name in ("best", "last"):
        assert weights_of(run, name) == weights_of(whole, name)
    with refused("--finetune-factor cannot change on a resume"):
        resume_pretraining(run, {"finetune_factor": 0.5, "epochs": 3})


@pytest.mark.parametrize(
    "options, said",
    [
        ({"finetune_factor": 0.1}, "--finetune-factor 0.1 is for --mode finetune: --mode train"),
        ({"finetune_factor": 0.1, "mode": "frozen"}, "--mode frozen learns nothing"),
        ({"unfreeze_from": "trunk.stage3"}, "--unfreeze-from trunk.stage3 is for --mode finetune"),
        ({"mode": "finetune", "finetune_factor": 0.0}, "--finetune-factor 0.0 must be more than 0"),
        ({"mode": "tune"}, '--mode "tune" is unknown'),
        (
            {"mode": "finetune", "unfreeze_from": "trunk.stage4"},
            'no node "trunk.stage4" to be unfrozen from. Did you mean',
        ),
        ({"mode": "finetune", "unfreeze_from": "pool"}, "no parameters to train from node"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_one_line_and_makes_no_run(
    options: dict[str, Any], said: str, config: PretrainConfig, tmp_path: Path
) -> None:
    with refused(said):
        pretrain(replace(config, **{"mode": "train", **options}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_mode_is_described(config: PretrainConfig) -> None:
    def described(**options: Any) -> str:
        resolved = replace(config, **options).resolve()
        made = PretrainingSetup(resolved, load_images(resolved, lambda line: None))
        trainer = made.make_trainer(made.make_encoder(0))
        return dict(describe_pretraining(resolved, made, trainer))["encoder"]

    assert described().endswith("finetune from random weights, at 0.1 of the rate")
    assert "w.pth, the layers from trunk.stage2 on, at 0.5 of the rate" in described(
        weights="w.pth", unfreeze_from="trunk.stage2", finetune_factor=0.5
    )
    assert described(mode="frozen").endswith("frozen random weights")
    assert config.notes_on_mode() == [
        "the encoder to be fine-tuned has random weights: --weights gives others"
    ]
