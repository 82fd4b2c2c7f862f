"""A whole benchmark: the parts of training alone, agents beside them, and encoders."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from agents.benchmark.ceilings import CEILINGS, ceiling_variants, thread_counts
from agents.benchmark.encoder_table import (
    EncoderTimes,
    Precision,
    image_models,
    measure_encoders,
    registered_encoders,
)
from agents.benchmark.peers import peer_variants
from agents.benchmark.settings import Settings
from agents.benchmark.stages import environment_stage, threads_name
from agents.benchmark.throughput_bound import overlapped_rate, serial_rate
from agents.config import TrainConfig
from agents.measure.learners import our_agent
from agents.measure.timing import (
    Fastest,
    Loop,
    Runner,
    Spread,
    Tell,
    fastest,
    measure_in_turn,
    round_by_round,
)
from agents.measure.workers import Facts, Worker
from agents.registry import Algorithm
from rlcnn.accelerate.malloc import keep_freed_memory
from rlcnn.runs.provenance import provenance

OURS = "ours"
OUR_ENVIRONMENT = "AtariVecEnv"


@dataclass(frozen=True)
class Measured:
    """What something did in a second.

    Attributes:
        rate: units of work per second.
        variant: how it was done.
        compile_seconds: how much longer the first time took than a usual one.
        trials: rates of the variants it was chosen from.
        facts: of agents, what they took beside time.
    """

    rate: Spread
    variant: str
    compile_seconds: float
    trials: dict[str, float] = field(default_factory=dict)
    facts: Facts | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON, the facts among the rest."""
        return {
            "rate": self.rate.to_json(),
            "variant": self.variant,
            "trials": self.trials,
            "compile_seconds": self.compile_seconds,
            **(asdict(self.facts) if self.facts else {}),
        }


@dataclass(frozen=True)
class AlgorithmResult:
    """An algorithm: its parts alone, and agents beside them.

    Attributes:
        config: the training, resolved.
        ceilings: by :data:`~agents.benchmark.ceilings.CEILINGS`, and our own environments; empty
            where they were not measured.
        agents: "ours" and peers; empty where they were not measured.
    """

    config: TrainConfig
    ceilings: dict[str, Measured]
    agents: dict[str, Measured]

    @property
    def overlapped(self) -> bool:
        """Whether stages overlap: those of the CPU and those of a GPU."""
        return self.config.device != "cpu"

    @property
    def permitted(self) -> Spread | None:
        """Steps per second that the parts permit together, each at its fastest."""
        if not self.ceilings:
            return None
        rate = overlapped_rate if self.overlapped else serial_rate
        parts = (self.ceilings[name].rate for name in CEILINGS)
        samples = self.config.hyperparameters.samples_per_step
        return round_by_round(partial(rate, samples=samples), *parts)

    @property
    def efficiency(self) -> Spread | None:
        """Our rate as a share of what the parts permit."""
        permitted, ours = self.permitted, self.agents.get(OURS)
        return round_by_round(_ratio, ours.rate, permitted) if permitted and ours else None

    @property
    def speedup(self) -> dict[str, Spread]:
        """Our rate in units of each peer's."""
        ours = self.agents.get(OURS)
        return {
            name: round_by_round(_ratio, ours.rate, peer.rate)
            for name, peer in self.agents.items()
            if ours and name != OURS
        }

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        permitted, efficiency = self.permitted, self.efficiency
        return {
            "config": self.config.to_json(),
            "ceilings": {name: part.to_json() for name, part in self.ceilings.items()},
            "samples_per_step": self.config.hyperparameters.samples_per_step,
            "stages": "overlapped" if self.overlapped else "serial",
            "permitted": permitted.to_json() if permitted else None,
            "agents": {name: agent.to_json() for name, agent in self.agents.items()},
            "efficiency": efficiency.to_json() if efficiency else None,
            "speedup": {name: speedup.to_json() for name, speedup in self.speedup.items()},
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """Everything that was measured."""

    settings: Settings
    algorithms: dict[Algorithm, AlgorithmResult]
    encoders: list[EncoderTimes]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON, with the machine and the versions it was measured on."""
        return {
            "provenance": provenance(),
            "settings": asdict(self.settings),
            "algorithms": {name: result.to_json() for name, result in self.algorithms.items()},
            "encoders": [row.to_json() for row in self.encoders],
        }


def run_benchmark(settings: Settings, tell: Tell) -> BenchmarkResult:
    """Measures what ``settings`` ask for.

    Args:
        settings: what to measure.
        tell: is told what is under way, in lines.

    Raises:
        UserError: a value is not valid, or nothing can run with these options.
    """
    settings.validate()
    algorithms = {algo: measure_algorithm(settings, algo, tell) for algo in settings.algorithms}
    encoders = _measure_encoders(settings, tell) if "encoders" in settings.parts else []
    return BenchmarkResult(settings, algorithms, encoders)


def measure_algorithm(settings: Settings, algo: Algorithm, tell: Tell) -> AlgorithmResult:
    """Measures an algorithm's parts and agents, in turn.

    Args:
        settings: what to measure.
        algo: the algorithm.
        tell: is told what is under way, in lines.

    Raises:
        UserError: it cannot run with these options.
    """
    config = settings.agent_config(algo)
    # Code compiled for one algorithm counts against the limit on versions of the other's.
    torch.compiler.reset()
    with ExitStack() as stack:
        ceilings, agents = {}, {}
        if "ceilings" in settings.parts:
            ceilings = _fastest_parts(settings, config, stack, tell)
        if algo in settings.parts:
            agents = _warm_agents(settings, config, stack, tell)
        tell(f"{algo}: measuring")
        runners: dict[tuple[str, str], Runner] = {
            **{("alone", name): part.runner for name, part in ceilings.items()},
            **{("agent", name): agent.runner for name, agent in agents.items()},
        }
        rates = measure_in_turn(runners, settings.rounds, settings.seconds, tell)
        return AlgorithmResult(
            config,
            {
                name: Measured(
                    rates["alone", name], part.variant, part.runner.compile_seconds, part.trials
                )
                for name, part in ceilings.items()
            },
            {name: _measured_agent(rates["agent", name], agent) for name, agent in agents.items()},
        )


def _fastest_parts(
    settings: Settings, config: TrainConfig, stack: ExitStack, tell: Tell
) -> dict[str, Fastest[Loop]]:
    """The parts of training, each at its fastest, and our environments; open until ``stack`` is."""
    keep_freed_memory()
    parts = {}
    for name, variants in ceiling_variants(config, settings.compile_ceilings).items():
        tell(f"{config.algo}: the fastest of {len(variants)} ways to run the {name} alone")
        parts[name] = fastest(variants, settings.seconds / 4, tell)
        stack.callback(parts[name].runner.close)
    own = environment_stage(config)
    stack.callback(own.close)
    parts[OUR_ENVIRONMENT] = Fastest(threads_name(config.num_threads), own, {})
    return parts


def _warm_agents(
    settings: Settings, config: TrainConfig, stack: ExitStack, tell: Tell
) -> dict[str, Fastest[Worker]]:
    """Our agent, and each peer at its fastest; open until ``stack`` closes them."""
    tell(f"{config.algo}: warming up {OURS}")
    ours = Worker(partial(our_agent, config), config.num_threads, config.device)
    stack.callback(ours.close)
    agents = {OURS: Fastest(_our_variant(config), ours, {})}
    for peer in settings.peers:
        workers = _peer_workers(peer, config)
        tell(f"{config.algo}: the fastest of {len(workers)} ways to run {peer}")
        agents[peer] = fastest(workers, settings.seconds / 4, tell)
        stack.callback(agents[peer].runner.close)
    return agents


def _peer_workers(peer: str, config: TrainConfig) -> dict[str, partial[Worker]]:
    return {
        f"{way}, {threads_name(count)}": partial(Worker, make, count, config.device)
        for way, make in peer_variants(peer, config).items()
        for count in thread_counts(config.num_threads)
    }


def _measured_agent(rate: Spread, agent: Fastest[Worker]) -> Measured:
    facts = agent.runner.facts()
    return Measured(rate, agent.variant, facts.compile_seconds, agent.trials, facts)


def _our_variant(config: TrainConfig) -> str:
    how: list[str] = [config.precision]
    if config.compile == "on":
        how.append("compiled")
    if config.cuda_graphs == "on":
        how.append("graph")
    if config.overlap == "on":
        how.append("overlap")
    return ", ".join([*how, threads_name(config.num_threads)])


def _measure_encoders(settings: Settings, tell: Tell) -> list[EncoderTimes]:
    config = settings.train.resolve()
    precisions: tuple[Precision, ...] = (
        ("fp32", "bf16") if config.precision == "bf16" else ("fp32",)
    )
    passes = [
        *registered_encoders(config.device, precisions, settings.encoder_batch),
        *image_models(settings.image_models, config.device, precisions, tell),
    ]
    return measure_encoders(passes, settings.rounds, settings.seconds / 4, config.num_threads, tell)


def _ratio(one: float, other: float) -> float:
    return one / other
