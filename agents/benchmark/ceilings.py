"""The fastest way known to do each part of training alone, found by trying."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

from gymnasium import spaces

from agents.benchmark.stages import (
    Arithmetic,
    Variant,
    emulator_stage,
    inference_stage,
    threads_name,
    update_stage,
)
from agents.config import TrainConfig
from agents.measure.timing import Loop
from agents.train.builder import make_train_env

CEILINGS = ("environment", "inference", "update")


def thread_counts(cores: int) -> list[int]:
    """Numbers of threads worth trying: one, half of the cores, all of them."""
    return sorted({1, max(1, cores // 2), cores})


def ceiling_variants(
    config: TrainConfig, compiling: bool
) -> dict[str, dict[str, Callable[[], Loop]]]:
    """For each of ``CEILINGS``, the ways to do it that are worth trying, by name.

    Args:
        config: the training, resolved. Only where its precision is bf16 is bf16 tried.
        compiling: whether compiled code is tried, too.
    """
    cores = config.num_threads
    emulator_threads = {min(count, config.num_envs) for count in (*thread_counts(cores), 2 * cores)}
    with closing(make_train_env(config)) as venv:
        assert isinstance(venv.observation_space, spaces.Box)
        assert isinstance(venv.action_space, spaces.Discrete)
        shape, actions = venv.observation_space.shape, int(venv.action_space.n)
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
    # Of the host's threads, a GPU needs but the one that gives it its work.
    for threads in [config.num_threads] if on_gpu else thread_counts(config.num_threads):
        plain = [Variant(arithmetic, threads) for arithmetic in arithmetics]
        # The last is the fastest but for the smallest of batches, and compiling takes its time.
        fastest = arithmetics[-1]
        if on_gpu:
            plain.append(Variant(fastest, threads, graph=True))
        if compiling:
            plain.append(Variant(fastest, threads, compiled=True))
        if compiling and on_gpu:
            plain.append(Variant(fastest, threads, compiled=True, graph=True))
        variants += plain
    return variants
