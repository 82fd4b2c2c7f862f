"""A benchmark's result as tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from agents.benchmark.encoder_table import EncoderTimes
from agents.benchmark.suite import AlgorithmResult, BenchmarkResult
from agents.measure.timing import Spread


def report(result: BenchmarkResult) -> Iterator[RenderableType]:
    """Two tables for each algorithm, time and memory, and one of the encoders."""
    for algorithm in result.algorithms.values():
        yield Text(title(algorithm), style="bold")
        yield _algorithm_table(algorithm)
        if algorithm.agents:
            yield _memory_table(algorithm)
    if result.encoders:
        yield Text("encoders, milliseconds", style="bold")
        yield _encoder_table(result.encoders)


def _algorithm_table(result: AlgorithmResult) -> Table:
    table = Table("", *_numbers("per second", "least - most"), "how")
    for name, part in result.ceilings.items():
        table.add_row(f"{name} alone", *_figures(part.rate), part.variant)
    if result.bound:
        stages = "the slower of CPU and GPU" if result.overlapped else "one after the other"
        table.add_row("throughput bound", *_figures(result.bound), stages, end_section=True)
    for name, agent in result.agents.items():
        table.add_row(name, *_figures(agent.rate), agent.variant)
    table.add_section()
    if result.efficiency:
        table.add_row("efficiency", *_figures(result.efficiency), "ours / throughput bound")
    for name, speedup in result.speedup.items():
        table.add_row("speedup", *_figures(speedup), f"ours / {name}")
    return table


def title(result: AlgorithmResult) -> str:
    """The training in one line."""
    config = result.config
    encoder = config.encoder if config.mode == "train" else f"{config.encoder} {config.mode}"
    rounds = config.hyperparameters.describe(f"{config.num_envs} environments")
    return f"{config.algo.upper()}, {config.env}, {encoder}, {rounds}, {config.device}"


def _memory_table(result: AlgorithmResult) -> Table:
    columns = ["compilation, s", "peak host, MB", "peak device, MB", "bytes / transition"]
    table = Table("", *_numbers(*columns))
    for name, agent in result.agents.items():
        if (facts := agent.facts) is None:
            table.add_row(name)
            continue
        device, replay = facts.peak_device_bytes, facts.replay_bytes_per_transition
        table.add_row(
            name,
            f"{facts.compile_seconds:.1f}",
            f"{facts.peak_host_bytes / 1e6:,.0f}",
            "-" if device is None else f"{device / 1e6:,.0f}",
            "-" if replay is None else f"{replay:,.0f}",
        )
    return table


def _encoder_table(rows: list[EncoderTimes]) -> Table:
    columns = ["parameters", "forward", "backward", "total", "least - most"]
    table = Table("", "input", "arithmetic", *_numbers(*columns))
    for row in rows:
        table.add_row(
            row.name,
            "x".join(map(str, row.input_shape)),
            row.precision,
            f"{row.parameters:,}",
            _figure(row.forward_ms.median),
            _figure(row.backward_ms.median),
            *_figures(row.total_ms),
        )
    return table


def _numbers(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _figures(spread: Spread) -> tuple[str, str]:
    return _figure(spread.median), f"{_figure(spread.least)} - {_figure(spread.most)}"


def _figure(value: float) -> str:
    """At least three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
