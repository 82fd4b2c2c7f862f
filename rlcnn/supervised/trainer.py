"""Training on labelled images: updates, evaluation, and a state that resumes exactly."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import torch

from envs.errors import UserError, first_line
from rlcnn.accelerate.cpu_threads import SpareCores
from rlcnn.accelerate.devices import Precision, prepare_device
from rlcnn.accelerate.gradient_step import gradient_step, parameter_norm
from rlcnn.accelerate.transfers import read_late
from rlcnn.data.batches import Batch, Batches
from rlcnn.data.images import UNKNOWN
from rlcnn.encoders.finetuning import set_learning_rate
from rlcnn.runs.files import read_json, write_json_atomic
from rlcnn.runs.torch_state import load_torch, restore_torch_rng, save_torch, torch_rng
from rlcnn.supervised.averaging import WeightAverage
from rlcnn.supervised.classifier import Classifier
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.evaluation.metrics import held_out_figures
from rlcnn.supervised.optimization import (
    adopt_kernels,
    classification_loss,
    learning_rate,
    make_optimizer,
)

STATE, OPTIMIZER, NETWORK = "state.json", "optimizer.pt", "network.pt"


class Trainer:
    """Trains a classifier, update by update.

    On a CPU in float32, the same configuration, data and seed give the same bits, also when the
    training is saved and restored anywhere in between.

    ``epoch`` is the number of whole epochs done, and ``batch`` the number of updates done in the
    next one.
    """

    def __init__(
        self, config: PretrainConfig, classifier: Classifier, train: Batches, test: Batches
    ) -> None:
        """Moves a new classifier to the device; every "auto" in ``config`` is resolved."""
        self.config = config
        self.device = torch.device(config.device)
        prepare_device(self.device, cast(Precision, config.precision))
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        # torch's stubs lack the memory format of modules.
        self.classifier: Classifier = classifier.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.train, self.test = train, test
        finetuned = classifier.encoder if config.mode == "finetune" else None
        self._optimizer = make_optimizer(classifier, config, finetuned)
        self._average = WeightAverage(classifier, config.ema) if config.ema else None
        self.epoch = self.batch = 0
        # In float32, results must not depend on other programs on the machine.
        self._spare_cores = SpareCores(self.device.type == "cpu" and config.precision == "bf16")
        # Sums of the loss and of updates, for each task of right and of known labels, and of
        # gradient norms. They
        # stay on the device, so that no update waits for a copy.
        count = 3 + 2 * len(classifier.tasks)
        self._sums = torch.zeros(count, dtype=torch.float64, device=self.device)

    @property
    def step(self) -> int:
        """Updates done."""
        return self.epoch * self.train.per_epoch + self.batch

    @property
    def evaluated(self) -> Classifier:
        """The network that is evaluated and saved: the classifier, or its moving average."""
        return self.classifier if self._average is None else self._average.module

    def learn_epoch(self) -> Generator[int, None, None]:
        """Trains to the end of the epoch; yields the number of images after each update.

        It may be closed between two updates; the next call goes on there.
        """
        self.classifier.train()
        with self._spare_cores:
            for batch in self.train.epoch(self.epoch, self.batch):
                self._spare_cores.adjust()
                self._update(batch)
                self.batch += 1
                yield len(batch.images)
        self.epoch, self.batch = self.epoch + 1, 0

    def epoch_metrics(self) -> dict[str, float]:
        """Mean loss, gradient norm and training accuracy, by task, since the last call.

        The norms are of all gradients and all parameters as one vector.

        Raises:
            UserError: the loss or a parameter is no longer a finite number.
        """
        self.check_finite()
        loss_sum, updates, *counts, norms = self._sums.tolist()
        figures = {"train/loss": loss_sum / max(1, updates)}
        tasks = self.classifier.tasks
        for task, right, known in zip(tasks, counts[::2], counts[1::2], strict=True):
            name = f"train/top1/{task.name}" if len(tasks) > 1 else "train/top1"
            figures[name] = right / max(1, known)
        figures["train/grad_norm"] = norms / max(1, updates)
        figures["train/param_norm"] = parameter_norm(self.classifier).item()
        self._sums.zero_()
        return figures

    def check_finite(self) -> None:
        """Checks the loss and every parameter; waits for the device.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        # The last update can spoil the parameters after losses that were all finite.
        sums = [parameter.detach().sum() for parameter in self.classifier.parameters()]
        if not torch.stack([self._sums[0], *sums]).sum().isfinite():
            raise UserError(
                "the loss is no longer a finite number in epoch"
                f" {self.epoch + bool(self.batch)}: a lower --learning-rate than"
                f" {self.config.learning_rate:g} or a longer --warmup-epochs may help"
            )

    def _update(self, batch: Batch) -> None:
        rate = learning_rate(self.config, self.step, self.train.per_epoch)
        set_learning_rate(self._optimizer, rate)
        with self._autocast():
            features = self.classifier.encoder(batch.images)
        logits = self.classifier.classify(features)
        loss = classification_loss(logits, batch.labels, self.config.label_smoothing)
        norm = gradient_step(loss, self._optimizer, self.classifier.parameters())
        if self._average is not None:
            self._average.update()
        sums = [loss.detach(), torch.ones_like(loss)]
        for scores, target in zip(logits, batch.labels.unbind(dim=1), strict=True):
            sums += [(scores.argmax(dim=1) == target).sum(), (target != UNKNOWN).sum()]
        self._sums += torch.stack([value.double() for value in (*sums, norm)])

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    # -- evaluation ------------------------------------------------------------------------------

    def held_out_logits(self) -> tuple[torch.Tensor, ...]:
        """Logits of the held-out images, (images, classes) for each task, on the CPU."""
        classifier = self.evaluated.eval()
        with torch.inference_mode(), self._autocast():
            batches = self.test.held_out()
            # One tensor per batch, copied while the next batch is computed.
            logits = (torch.cat(classifier(batch.images), dim=1) for batch in batches)
            every = torch.cat(list(read_late(logits, self.device)))
        return every.split(classifier.classes, dim=1)

    def evaluate(self) -> dict[str, float]:
        """Loss, and top-1 and (of more than five classes) top-5 accuracy on the held-out images.

        With several tasks, ``test/top1`` is the mean over them.
        """
        images = self.test.images
        return held_out_figures(self.held_out_logits(), images.labels, images.tasks)

    # -- checkpoints -----------------------------------------------------------------------------

    def save(self, directory: Path, extra: dict[str, Any]) -> None:
        """Writes all that the next update depends on, and the JSON values in ``extra``.

        Raises:
            UserError: the disk is full or cannot be written, or the loss or a parameter is no
                longer a finite number.
        """
        self.check_finite()
        network = {
            "classifier": self.classifier.state_dict(),
            "average": self._average.state_dict() if self._average is not None else None,
            "sums": self._sums,
            "rng": torch_rng(self.device),
        }
        save_torch(network, directory / NETWORK)
        save_torch(self._optimizer.state_dict(), directory / OPTIMIZER)
        state = {"epoch": self.epoch, "batch": self.batch, "extra": extra}
        write_json_atomic(directory / STATE, state)

    def restore(self, directory: Path) -> dict[str, Any]:
        """Brings a new trainer to the state that :meth:`save` wrote; returns its ``extra``.

        Raises:
            UserError: a file is missing or damaged, or of another network.
        """
        state = read_json(directory / STATE)
        network = load_torch(directory / NETWORK)
        optimizer = load_torch(directory / OPTIMIZER)
        try:
            self.epoch, self.batch = int(state["epoch"]), int(state["batch"])
            extra = dict(state["extra"])
            self.classifier.load_state_dict(network["classifier"])
            if self._average is not None:
                self._average.load_state_dict(network["average"])
            adopt_kernels(self._optimizer, optimizer)
            self._optimizer.load_state_dict(optimizer)
            # An older checkpoint has no gradient norms.
            self._sums[: len(network["sums"])] = network["sums"].to(self.device)
            # Last: the steps before may have drawn from the generators.
            restore_torch_rng(self.device, network["rng"])
        except Exception as error:
            # Whatever error a damaged file causes, the user's remedy is the same.
            raise UserError(f"checkpoint {directory} is damaged: {first_line(error)}") from error
        return extra
