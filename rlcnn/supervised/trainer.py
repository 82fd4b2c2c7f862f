"""Pretraining of an encoder: updates, evaluation, and a state that resumes exactly."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from envs.errors import UserError, first_line
from rlcnn.accelerate.cpu_threads import SpareCores
from rlcnn.accelerate.devices import Precision, prepare_device
from rlcnn.accelerate.gradient_step import gradient_step, parameter_norm
from rlcnn.data.batches import Batches
from rlcnn.encoders.finetuning import set_learning_rate
from rlcnn.runs.files import read_json, write_json_atomic
from rlcnn.runs.torch_state import load_torch, restore_torch_rng, save_torch, torch_rng
from rlcnn.supervised.averaging import WeightAverage
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.network import Examples, Minibatches, PretrainingNetwork
from rlcnn.supervised.optimization import adopt_kernels, learning_rate, make_optimizer

STATE, OPTIMIZER, NETWORK = "state.json", "optimizer.pt", "network.pt"


class Trainer:
    """Trains a network, such as a classifier, update by update.

    On a CPU in float32, the same configuration, data and seed give the same bits, also when the
    training is saved and restored anywhere in between.

    ``epoch`` is the number of whole epochs done, and ``batch`` the number of updates done in the
    next one.
    """

    def __init__(
        self,
        config: PretrainConfig,
        network: PretrainingNetwork,
        train: Minibatches,
        test: Minibatches,
    ) -> None:
        """Moves a new network to the device; every "auto" in ``config`` is resolved.

        ``train`` and ``test`` are minibatches of the network's kind.
        """
        self.config = config
        self.device = torch.device(config.device)
        prepare_device(self.device, cast(Precision, config.precision))
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        # torch's stubs lack the memory format of modules.
        self.network: PretrainingNetwork = network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.train, self.test = train, test
        finetuned = network.encoder if config.mode == "finetune" else None
        self._optimizer = make_optimizer(network, config, finetuned)
        self._average = WeightAverage(network, config.ema) if config.ema else None
        self.epoch = self.batch = 0
        # In float32, results must not depend on other programs on the machine.
        self._spare_cores = SpareCores(self.device.type == "cpu" and config.precision == "bf16")
        # Sums of the loss and of updates, for each ratio of its two parts, and of gradient norms.
        # They stay on the device, so that no update waits for a copy.
        count = 3 + 2 * len(network.measured)
        self._sums = torch.zeros(count, dtype=torch.float64, device=self.device)

    @property
    def step(self) -> int:
        """Updates done."""
        return self.epoch * self.train.per_epoch + self.batch

    @property
    def evaluated(self) -> PretrainingNetwork:
        """The network that is evaluated and saved: the trained one, or its moving average."""
        return self.network if self._average is None else self._average.module

    def learn_epoch(self) -> Generator[int, None, None]:
        """Trains to the end of the epoch; yields the number of examples after each update.

        It may be closed between two updates; the next call goes on there.
        """
        self.network.train()
        with self._spare_cores:
            for batch in self.train.epoch(self.epoch, self.batch):
                self._spare_cores.adjust()
                self._update(batch)
                self.batch += 1
                yield len(batch.labels)
        self.epoch, self.batch = self.epoch + 1, 0

    def epoch_metrics(self) -> dict[str, float]:
        """Mean loss, gradient norm and the network's ratios since the last call.

        The norms are of all gradients and all parameters as one vector.

        Raises:
            UserError: the loss or a parameter is no longer a finite number.
        """
        self.check_finite()
        loss_sum, updates, *counts, norms = self._sums.tolist()
        figures = {"train/loss": loss_sum / max(1, updates)}
        parts = zip(self.network.measured, counts[::2], counts[1::2], strict=True)
        for name, numerator, denominator in parts:
            figures[f"train/{name}"] = numerator / max(1, denominator)
        figures["train/grad_norm"] = norms / max(1, updates)
        figures["train/param_norm"] = parameter_norm(self.network).item()
        self._sums.zero_()
        return figures

    def check_finite(self) -> None:
        """Checks the loss and every parameter; waits for the device.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        # The last update can spoil the parameters after losses that were all finite.
        sums = [parameter.detach().sum() for parameter in self.network.parameters()]
        if not torch.stack([self._sums[0], *sums]).sum().isfinite():
            raise UserError(
                "the loss is no longer a finite number in epoch"
                f" {self.epoch + bool(self.batch)}: a lower --learning-rate than"
                f" {self.config.learning_rate:g} or a longer --warmup-epochs may help"
            )

    def _update(self, batch: Examples) -> None:
        rate = learning_rate(self.config, self.step, self.train.per_epoch)
        set_learning_rate(self._optimizer, rate)
        with self._autocast():
            loss, ratios = self.network.measure(batch)
        norm = gradient_step(loss, self._optimizer, self.network.parameters())
        self.network.after_update()
        if self._average is not None:
            self._average.update()
        sums = [loss.detach(), torch.ones_like(loss), *itertools.chain(*ratios), norm]
        self._sums += torch.stack([value.double() for value in sums])

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    # -- evaluation ------------------------------------------------------------------------------

    def held_out_logits(self, test: Batches) -> tuple[torch.Tensor, ...] | None:
        """As :meth:`PretrainingNetwork.held_out_logits` of the evaluated network."""
        with self._inference() as network:
            return network.held_out_logits(test)

    def evaluate(self) -> dict[str, float]:
        """The evaluated network's figures on the held-out minibatches, ``test/...``."""
        with self._inference() as network:
            return network.evaluate(self.test)

    @contextmanager
    def _inference(self) -> Iterator[PretrainingNetwork]:
        with torch.inference_mode(), self._autocast():
            yield self.evaluated.eval()

    # -- checkpoints -----------------------------------------------------------------------------

    def save(self, directory: Path, extra: dict[str, Any]) -> None:
        """Writes all that the next update depends on, and the JSON values in ``extra``.

        Raises:
            UserError: the disk is full or cannot be written, or the loss or a parameter is no
                longer a finite number.
        """
        self.check_finite()
        network = {
            # The name that it had when all networks were classifiers.
            "classifier": self.network.state_dict(),
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
            self.network.load_state_dict(network["classifier"])
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
