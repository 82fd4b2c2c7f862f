"""The highest known rate of each part of training alone, and the throughput bound they set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from agents.benchmark.stages import (
    Arithmetic,
    Variant,
    emulator_stage,
    inference_stage,
    spaces_of,
    threads_name,
    update_stage,
)
from agents.config import TrainConfig
from agents.measure.timing import Loop

CEILINGS = ("environment", "inference", "update")


def throughput_bound(
    environment: float, inference: float, update: float, *, samples: float, overlapped: bool
) -> float:
    """The most steps per second that the parts of training allow together.

    Args:
        environment: steps per second of the environments alone.
        inference: observations per second of the policy alone.
        update: samples per second of the update alone.
        samples: samples learned from per environment step.
        overlapped: whether the CPU plays while a GPU computes: the slower of the two sets the
            bound. Otherwise one resource, such as the cores of a CPU, does everything in turn.
    """
    seconds = 1 / inference + samples / update
    return min(environment, 1 / seconds) if overlapped else 1 / (1 / environment + seconds)


def thread_counts(cores: int) -> list[int]:
    """Numbers of threads worth trying: one, half of the cores, all of them."""
    return sorted({1, max(1, cores // 2), cores})


def ceiling_variants(
    config: TrainConfig, compiling: bool
) -> dict[str, dict[str, Callable[[], Loop]]]:
    """For each of ``CEILINGS``, the variants worth trying, by name.

    bfloat16 is tried only if it is the precision of the training, which is resolved; compiled code
    only if ``compiling`` and nothing random is drawn in it.
    """
    compiling = compiling and not (config.algorithm.replay and config.dqn.draws)
    cores = config.num_threads
    emulator_threads = {min(count, config.num_envs) for count in (*thread_counts(cores), 2 * cores)}
    shape, actions = spaces_of(config)
    return {
        "environment": {
            threads_name(count): partial(emulator_stage, config, count)
            for count in sorted(emulator_threads)
        },
        "inference": {
            str(variant): partial(inference_stage, config, shape, actions, variant)
            for variant in _variants(config, compiling, ("bf16", "bf16 weights"))
        },
        "update": {
            str(variant): partial(update_stage, config, shape, actions, variant)
            for variant in _variants(config, compiling, ("bf16",))
        },
    }


def _variants(
    config: TrainConfig, compiling: bool, reduced: tuple[Arithmetic, ...]
) -> list[Variant]:
    arithmetics: tuple[Arithmetic, ...] = ("fp32",)
    if config.precision == "bf16":
        arithmetics += reduced
    on_gpu = config.device != "cpu"
    variants = []
    # A GPU needs one host thread, which gives it its work.
    for threads in [config.num_threads] if on_gpu else thread_counts(config.num_threads):
        variants += [Variant(arithmetic, threads) for arithmetic in arithmetics]
        # The last arithmetic is the fastest except for tiny batches; compiling takes time.
        fastest = partial(Variant, arithmetics[-1], threads)
        if on_gpu:
            variants.append(fastest(graph=True))
        if compiling:
            variants.append(fastest(compiled=True))
        if compiling and on_gpu:
            variants.append(fastest(compiled=True, graph=True))
    return variants
