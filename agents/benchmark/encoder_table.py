"""Times of encoders, forward and backward, as in jcjohnson's cnn-benchmarks."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from agents.benchmark.options import ImageModel
from agents.measure.timing import Log, Spread, measure_in_turn, round_by_round, synchronize
from rlcnn.accelerate.devices import use_threads
from rlcnn.encoders import create_encoder, list_encoders

Precision = Literal["fp32", "bf16"]

OBSERVATION_SHAPE = (4, 84, 84)
IMAGES = (16, 3, 224, 224)


@dataclass(frozen=True)
class EncoderTimes:
    """A row of the table.

    Milliseconds of a forward pass that prepares a backward pass, and of the backward pass to all
    parameters. ``input_shape`` is (batch, channels, height, width); "bf16" is autocast.
    """

    name: str
    input_shape: tuple[int, ...]
    precision: Precision
    parameters: int
    forward_ms: Spread
    backward_ms: Spread

    @property
    def total_ms(self) -> Spread:
        """Milliseconds of both passes."""
        return round_by_round(lambda *both: sum(both), self.forward_ms, self.backward_ms)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        passes = ("forward_ms", "backward_ms", "total_ms")
        return {**vars(self), **{name: getattr(self, name).to_json() for name in passes}}


@dataclass(frozen=True)
class Passes:
    """A network on its device, in training mode, and its inputs, ready for timing.

    Inputs are (batch, channels, height, width), as the network takes them; "bf16" is autocast.
    """

    name: str
    network: nn.Module
    inputs: torch.Tensor
    precision: Precision

    def measure(self, seconds: float) -> tuple[float, float]:
        """Milliseconds of a forward and a backward pass, medians over about ``seconds``."""
        device = str(self.inputs.device)
        self._pass(device)
        times = [self._pass(device)]
        while sum(map(sum, times)) < seconds:
            times.append(self._pass(device))
        forward, backward = zip(*times, strict=True)
        return 1_000 * statistics.median(forward), 1_000 * statistics.median(backward)

    def _pass(self, device: str) -> tuple[float, float]:
        for parameter in self.network.parameters():
            parameter.grad = None
        kind = self.inputs.device.type
        synchronize(device)
        began = time.perf_counter()
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self.network(self.inputs)
        synchronize(device)
        between = time.perf_counter()
        outputs.backward(torch.ones_like(outputs))
        synchronize(device)
        return between - began, time.perf_counter() - between


def registered_encoders(
    device: str, precisions: tuple[Precision, ...], batch: int = 256
) -> list[Passes]:
    """Every registered encoder with its defaults, on four grey 84x84 frames.

    Weights are channels-last, as in our agents.
    """
    shape = (batch, *OBSERVATION_SHAPE)
    observations = torch.randint(256, shape, dtype=torch.uint8, device=device)
    passes = []
    for name in list_encoders():
        network = create_encoder(name, OBSERVATION_SHAPE).to(device)
        network = network.to(memory_format=torch.channels_last)
        passes += [Passes(name, network, observations, precision) for precision in precisions]
    return passes


def image_models(
    names: tuple[ImageModel, ...],
    device: str,
    precisions: tuple[Precision, ...],
    log: Log,
    shape: tuple[int, ...] = IMAGES,
) -> list[Passes]:
    """Networks of torchvision with random weights and no other changes.

    Without torchvision the list is empty and ``log`` receives a line. ``names`` are of
    :data:`agents.benchmark.options.IMAGE_MODELS`; images have the ``shape`` (batch, 3, height,
    width).
    """
    if not names:
        return []
    try:
        from torchvision import models
    except ImportError as error:
        log(f"ImageNet's networks are left out: {error}")
        return []
    images = torch.randn(shape, device=device)
    passes = []
    for name in names:
        network = models.get_model(name, weights=None).to(device)
        passes += [Passes(name, network, images, precision) for precision in precisions]
    return passes


def measure_encoders(
    passes: list[Passes], rounds: int, seconds: float, threads: int, log: Log
) -> list[EncoderTimes]:
    """Times every network once in each round, one after the other.

    A sample takes about ``seconds``, and at least one pass, with ``threads`` CPU threads of torch.
    """
    measures = {number: one.measure for number, one in enumerate(passes)}
    with use_threads(threads):
        samples = measure_in_turn(measures, rounds, seconds, lambda line: log(f"encoders: {line}"))
    rows = []
    for number, one in enumerate(passes):
        forward, backward = (Spread(times) for times in zip(*samples[number], strict=True))
        parameters = sum(parameter.numel() for parameter in one.network.parameters())
        shape = tuple(one.inputs.shape)
        rows.append(EncoderTimes(one.name, shape, one.precision, parameters, forward, backward))
    return rows
