"""Prioritised replay's cost: ``python -m agents.benchmark.priorities [--rate GAME]``."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import torch

from agents.measure.learners import our_agent
from agents.presets import preset_config
from agents.storage.prioritized import Priorities, PrioritizedSampler

_TRANSITIONS = 1_000_000
_REPEATS = 500
_ROUNDS = 6
# More than the random steps at the start.
_WARM_UP_STEPS = 1_500


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of a call."""
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def sampler_times(n_envs: int, batch_size: int) -> tuple[float, float]:
    """Milliseconds of drawing and updating a batch, and of one step's insertion, on one thread."""
    capacity = _TRANSITIONS // n_envs
    sampler = PrioritizedSampler(capacity, n_envs, "cpu", 0, Priorities())
    bounds = torch.tensor([capacity] + [0] * n_envs)
    sampler.load_state({}, bounds)
    priorities = torch.rand(batch_size)

    def draw_and_update() -> None:
        draw = sampler.sample(batch_size, bounds)
        sampler.set_priorities(draw.times * n_envs + draw.envs, priorities, bounds)

    return milliseconds(draw_and_update), milliseconds(lambda: sampler.add(bounds, bounds + 1))


def training_rates(game: str, steps: int) -> list[tuple[float, float]]:
    """DQN's steps per second with uniform and with prioritised replay, measured in turn.

    Each is measured for ``steps`` environment steps in each round.
    """
    config = replace(preset_config("zoo", "dqn"), env=game, device="cpu").resolve()
    dqn = replace(config.dqn, buffer_size=_TRANSITIONS, learning_starts=1_000)
    configs = [replace(config, dqn=replace(dqn, prioritized=p)) for p in (False, True)]
    with closing(our_agent(configs[0])) as uniform, closing(our_agent(configs[1])) as prioritized:
        rates: list[tuple[float, float]] = []
        for count in (_WARM_UP_STEPS, *[steps] * _ROUNDS):
            pair = []
            for learner in (uniform, prioritized):
                began = time.perf_counter()
                pair.append(learner.learn(count) / (time.perf_counter() - began))
            rates.append((pair[0], pair[1]))
    return rates[1:]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the times of the sampler, or the rates of training in a game."""
    parser = argparse.ArgumentParser(prog="python -m agents.benchmark.priorities")
    parser.add_argument("--rate", metavar="GAME", help="measure DQN's training rate in this game")
    parser.add_argument("--steps", type=int, default=1_200, help="steps in a measurement")
    options = parser.parse_args(argv)
    if options.rate:
        rates = training_rates(options.rate, options.steps)
        share = statistics.median(prioritized / uniform for uniform, prioritized in rates)
        print("steps/s, uniform and prioritised:", *(f"{a:.0f} {b:.0f};" for a, b in rates))
        print(f"prioritised replay has {share:.2f} of the rate of uniform replay (median)")
        return
    torch.set_num_threads(1)
    for n_envs in (1, 8):
        for batch_size in (32, 256):
            draw, insertion = sampler_times(n_envs, batch_size)
            print(
                f"{n_envs} environments, batch of {batch_size}: {draw:.3f} ms to draw and update,"
                f" {insertion:.3f} ms to insert a step"
            )


if __name__ == "__main__":
    main()
