"""Share of its speed that training keeps while other programs compute.

python -m agents.benchmark.busy --help
"""

from __future__ import annotations

import math
import operator
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from agents.benchmark.peers import peer_variants
from agents.benchmark.stage_learners import SupervisedLearner
from agents.benchmark.suite import Settings
from agents.config import TrainConfig
from agents.measure.learners import Learner, our_agent
from agents.measure.timing import Log, Spread, round_by_round
from agents.measure.workers import Worker
from agents.presets import preset_config
from envs.errors import UserError
from envs.machine.cores import usable_cores
from envs.machine.openmp import DEFAULT_SPIN_COUNT, best_spin_count
from rlcnn.accelerate import cpu_threads
from rlcnn.config.cli import parse_options
from rlcnn.config.script import run_script
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.progress import make_console
from rlcnn.runs.provenance import provenance

Subject = Literal["ppo", "dqn", "sb3-ppo", "sb3-dqn", "pretraining"]
SUBJECTS: tuple[Subject, ...] = ("ppo", "dqn", "sb3-ppo", "sb3-dqn", "pretraining")

Variant = Literal["plain", "cured"]
VARIANTS: tuple[Variant, ...] = ("plain", "cured")

# Computes until its parent process has ended.
_BUSY_LOOP = "import os\nwhile os.getppid() == {parent}: sum(range(100_000))"


@dataclass(frozen=True)
class Options:
    """Measure the share of its speed that training keeps while other programs compute.

    Every subject learns in two processes: "plain", and "cured" with this package's measures against
    other programs. Every round measures all of them in turn beside each number of busy loops. The
    operating system places the loops on the cores.
    """

    subjects: tuple[Subject, ...] = SUBJECTS
    """What to measure: our agents, stable-baselines3's (float32, DummyVecEnv), and our training on
    labelled images (ResNet-20, 32x32x3, batches of 128)."""
    spin_count: int = best_spin_count()
    """Turns for which OpenMP's threads spin before they sleep, in "cured" processes."""
    busy_loops: tuple[int, ...] = (0, 1, 2)
    """Numbers of other programs; the others are compared with the first."""
    rounds: int = 3
    """Samples of each figure."""
    seconds: float = 5.0
    """Approximate length of a sample; at least one iteration of the subject."""
    num_threads: int = 0
    """CPU threads of torch; 0 takes every core that this process may use."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of our agents and of pretraining."""
    json: Path | None = None
    """File to write all samples to, as JSON."""


def main(arguments: list[str]) -> None:
    """Parses a command line, measures and prints the table."""
    options = parse_options(Options, arguments, Options())
    if min(options.spin_count, *options.busy_loops, options.num_threads, options.rounds - 1) < 0:
        raise UserError(
            "--spin-count, --busy-loops and --num-threads must be at least 0, --rounds at least 1"
        )
    rates = measure(options, make_console().print)
    Console(width=None if Console().is_terminal else 140).print(rates_table(rates))
    if options.json is not None:
        samples = [
            {"subject": subject, "variant": variant, "busy_loops": loops, **rate.to_json()}
            for (subject, variant, loops), rate in rates.items()
        ]
        write_json_atomic(options.json, {"provenance": provenance(), "rates": samples})


Rates = dict[tuple[Subject, Variant, int], Spread]


def measure(options: Options, log: Log) -> Rates:
    """Steps (pretraining: images) per second, by subject, variant and number of busy loops."""
    threads = options.num_threads or usable_cores()
    with ExitStack() as stack:
        workers = {}
        for subject, variant in product(options.subjects, VARIANTS):
            log(f"warming up {subject}, {variant}")
            make = _learner(subject, threads, options.precision)
            plain = variant == "plain"
            with _spin_count(DEFAULT_SPIN_COUNT if plain else options.spin_count):
                make = partial(_all_threads, make) if plain else make
                worker = Worker(make, threads, "cpu", start_method="spawn")
            stack.callback(worker.close)
            workers[subject, variant] = worker
        samples: dict[tuple[Subject, Variant, int], list[float]] = {}
        for number, loops in product(range(options.rounds), options.busy_loops):
            log(f"round {number + 1} of {options.rounds}, {loops} busy loops")
            with busy_loops(loops):
                for (subject, variant), worker in workers.items():
                    rate = worker.measure(options.seconds)
                    samples.setdefault((subject, variant, loops), []).append(rate)
    return {key: Spread(tuple(rates)) for key, rates in samples.items()}


@contextmanager
def busy_loops(count: int) -> Iterator[Sequence[int]]:
    """Runs ``count`` busy programs inside the block; their process ids."""
    command = [sys.executable, "-c", _BUSY_LOOP.format(parent=os.getpid())]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def rates_table(rates: Rates) -> Table:
    """Median rates; beside busy loops also the median share of the rate of the first column."""
    loads = list(dict.fromkeys(loops for _, _, loops in rates))
    table = Table("subject", "variant", *(f"{loops} busy loops" for loops in loads))
    for subject, variant in dict.fromkeys(key[:2] for key in rates):
        idle = rates[subject, variant, loads[0]]
        cells = [f"{idle.median:,.0f} ({idle.least:,.0f}-{idle.most:,.0f})"]
        for loops in loads[1:]:
            rate = rates[subject, variant, loops]
            share = round_by_round(operator.truediv, rate, idle)
            cells.append(
                f"{rate.median:,.0f}: {share.median:.2f} ({share.least:.2f}-{share.most:.2f})"
            )
        table.add_row(subject, variant, *cells)
    return table


@contextmanager
def _spin_count(count: int) -> Iterator[None]:
    """Gives this spin count to processes that start inside the block."""
    before = dict(os.environ)
    os.environ["GOMP_SPINCOUNT"] = str(count)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _all_threads(make: Callable[[], Learner]) -> Learner:
    """A learner that always uses all its threads."""
    cpu_threads.SECONDS = math.inf
    return make()


def _learner(subject: Subject, threads: int, precision: Any) -> Callable[[], Learner]:
    """A function that makes the subject in its process."""
    if subject == "pretraining":
        config = TrainConfig(device="cpu", precision=precision, num_threads=threads).resolve()
        return partial(SupervisedLearner, config, images=2_048, batch_size=128)
    algo: Any = subject.removeprefix("sb3-")
    train = replace(
        preset_config("zoo", algo), device="cpu", precision=precision, num_threads=threads
    )
    agent = Settings(train=train).agent_config(algo)
    if subject.startswith("sb3"):
        return next(iter(peer_variants("sb3", agent).values()))
    return partial(our_agent, agent)


if __name__ == "__main__":
    run_script(main)
