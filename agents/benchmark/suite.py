"""A whole benchmark: the parts of training alone, agents beside them, and encoders."""

from __future__ import annotations

import operator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from agents.benchmark.ceilings import CEILINGS, ceiling_variants, thread_counts, throughput_bound
from agents.benchmark.encoder_table import (
    EncoderTimes,
    Precision,
    image_models,
    measure_encoders,
    registered_encoders,
)
from agents.benchmark.options import DEFAULT_PARTS, PARTS, Measurements
from agents.benchmark.peers import peer_variants
from agents.benchmark.stages import environment_stage, threads_name
from agents.config import TrainConfig
from agents.hyperparameters import Algorithm
from agents.measure.learners import our_agent
from agents.measure.timing import (
    Fastest,
    Log,
    Loop,
    Spread,
    fastest,
    measure_in_turn,
    round_by_round,
)
from agents.measure.workers import Facts, Worker
from agents.on_policy.checks import check_minibatches
from agents.presets import PRESETS, preset_config
from agents.registry import ALGORITHMS
from envs.errors import UserError
from envs.registry import atari_rom
from rlcnn.accelerate.compilation import can_compile
from rlcnn.accelerate.malloc import keep_freed_memory
from rlcnn.config.fields import check_options
from rlcnn.runs.provenance import provenance
from rlcnn.weights.load import read_spec

OURS = "ours"
OUR_ENVIRONMENT = "AtariVecEnv"
_MOST_LEARNING_STARTS = 1_000


@dataclass(frozen=True)
class Settings(Measurements):
    """A benchmark."""

    train: TrainConfig = field(default_factory=lambda: preset_config("zoo", "ppo"))
    """Options of all algorithms, and the hyperparameters of each."""

    @property
    def algorithms(self) -> list[Algorithm]:
        """The chosen algorithms; PPO and DQN, or the preset's own, if only ceilings are chosen."""
        parts = self.parts
        if "ceilings" in parts and not any(algo in parts for algo in ALGORITHMS):
            able = PRESETS[self.train.preset]
            parts = tuple(algo for algo in DEFAULT_PARTS if algo in able) or tuple(able)
        return [algo for algo in ALGORITHMS if algo in parts]

    def check_preset(self) -> None:
        """Raises ``UserError`` if the preset is for another algorithm than those to measure."""
        able = PRESETS[self.train.preset]
        for algo in self.algorithms:
            if algo not in able:
                raise UserError(
                    f"--parts {algo} cannot be measured: --preset {self.train.preset} is for"
                    f" {next(iter(able))}; leave out --parts, or choose --preset fast or zoo"
                )

    @property
    def compile_ceilings(self) -> bool:
        """Whether to try compiled variants of the ceilings."""
        # On a GPU, variants that cannot be compiled are logged and left out.
        on_gpu = self.train.resolve().device != "cpu"
        return self.train.compile in ("auto", "on") and (on_gpu or can_compile())

    def agent_config(self, algo: Algorithm) -> TrainConfig:
        """The training to measure, in its steady state, with every "auto" resolved.

        DQN takes at most 1,000 random steps instead of its ``learning_starts``, and DQN and PQN use
        their final epsilon from the start. So they act by their network and learn as in nearly all
        of a training.

        Raises:
            UserError: a value is not valid.
        """
        num_envs = {"dqn": self.dqn_num_envs}.get(algo, self.train.num_envs)
        config = replace(self.train, algo=algo, num_envs=num_envs)
        config.validate()
        dqn = replace(
            config.dqn,
            learning_starts=min(config.dqn.learning_starts, _MOST_LEARNING_STARTS),
            exploration_initial_eps=config.dqn.exploration_final_eps,
        )
        pqn = replace(config.pqn, exploration_initial_eps=config.pqn.exploration_final_eps)
        return replace(config, dqn=dqn, pqn=pqn).resolve()

    def validate(self) -> None:
        """Raises ``UserError`` if a value is not valid, with what was expected."""
        if not self.parts:
            raise UserError(f"--parts names nothing to measure: expected any of {', '.join(PARTS)}")
        check_options(self)
        self.check_preset()
        atari_rom(self.train.env)
        if self.train.weights not in ("none", "imagenet"):
            read_spec(self.train.weights)
        for algo in self.algorithms:
            config = self.agent_config(algo)
            if config.algorithm.on_policy:
                options: Any = config.hyperparameters
                sizes = config.num_envs, options.n_steps, options.batch_size
                check_minibatches(*sizes, getattr(options, "normalize_advantage", False))


@dataclass(frozen=True)
class Measured:
    """A measured rate, in units of work per second, and how the work was done.

    The first call took ``compile_seconds`` longer than a usual one. ``trials`` are the rates of the
    variants it was chosen from; agents have ``facts``, their costs besides time.
    """

    rate: Spread
    variant: str
    compile_seconds: float
    trials: dict[str, float] = field(default_factory=dict)
    facts: Facts | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the facts among the other values."""
        return {
            "rate": self.rate.to_json(),
            "variant": self.variant,
            "trials": self.trials,
            "compile_seconds": self.compile_seconds,
            **(asdict(self.facts) if self.facts else {}),
        }


@dataclass(frozen=True)
class AlgorithmResult:
    """An algorithm: its parts alone, and agents beside them; each empty if not measured.

    ``ceilings`` are those of :data:`~agents.benchmark.ceilings.CEILINGS`, and our own environments;
    ``agents`` are "ours" and peers.
    """

    config: TrainConfig
    ceilings: dict[str, Measured]
    agents: dict[str, Measured]

    @property
    def overlapped(self) -> bool:
        """Whether stages overlap: those of the CPU and those of a GPU."""
        return self.config.device != "cpu"

    @property
    def bound(self) -> Spread | None:
        """Steps per second that the parts allow together, each at its fastest."""
        if not self.ceilings:
            return None
        samples = self.config.hyperparameters.samples_per_step
        bound = partial(throughput_bound, samples=samples, overlapped=self.overlapped)
        return round_by_round(bound, *(self.ceilings[name].rate for name in CEILINGS))

    @property
    def efficiency(self) -> Spread | None:
        """Our rate divided by the throughput bound."""
        bound, ours = self.bound, self.agents.get(OURS)
        return round_by_round(operator.truediv, ours.rate, bound) if bound and ours else None

    @property
    def speedup(self) -> dict[str, Spread]:
        """Our rate divided by each peer's."""
        ours = self.agents.get(OURS)
        return {
            name: round_by_round(operator.truediv, ours.rate, peer.rate)
            for name, peer in self.agents.items()
            if ours and name != OURS
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        bound, efficiency = self.bound, self.efficiency
        return {
            "config": self.config.to_json(),
            "ceilings": {name: part.to_json() for name, part in self.ceilings.items()},
            "samples_per_step": self.config.hyperparameters.samples_per_step,
            "stages": "overlapped" if self.overlapped else "serial",
            # The throughput bound, under its first name.
            "permitted": bound.to_json() if bound else None,
            "agents": {name: agent.to_json() for name, agent in self.agents.items()},
            "efficiency": efficiency.to_json() if efficiency else None,
            "speedup": {name: speedup.to_json() for name, speedup in self.speedup.items()},
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """All measurements of a benchmark."""

    settings: Settings
    algorithms: dict[Algorithm, AlgorithmResult]
    encoders: list[EncoderTimes]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the machine and the versions of the measurement."""
        return {
            "provenance": provenance(),
            "settings": asdict(self.settings),
            "algorithms": {name: result.to_json() for name, result in self.algorithms.items()},
            "encoders": [row.to_json() for row in self.encoders],
        }


def run_benchmark(settings: Settings, log: Log) -> BenchmarkResult:
    """Measures everything that ``settings`` name; ``log`` receives progress lines.

    Raises:
        UserError: a value is not valid, or nothing can run with these options.
    """
    settings.validate()
    algorithms = {algo: measure_algorithm(settings, algo, log) for algo in settings.algorithms}
    encoders = _measure_encoders(settings, log) if "encoders" in settings.parts else []
    return BenchmarkResult(settings, algorithms, encoders)


def measure_algorithm(settings: Settings, algo: Algorithm, log: Log) -> AlgorithmResult:
    """Measures an algorithm's parts and agents in turn; errors as :func:`run_benchmark`."""
    config, trial_seconds = settings.agent_config(algo), settings.seconds / 4
    # Otherwise one algorithm's compiled code counts against torch's limit for the other's.
    torch.compiler.reset()
    parts: dict[str, Fastest[Loop]] = {}
    agents: dict[str, Fastest[Worker]] = {}
    with ExitStack() as stack:
        if "ceilings" in settings.parts:
            keep_freed_memory()
            for name, variants in ceiling_variants(config, settings.compile_ceilings).items():
                log(f"{algo}: the fastest of {len(variants)} ways to run the {name} alone")
                parts[name] = fastest(variants, trial_seconds, log)
                stack.callback(parts[name].runner.close)
            own = environment_stage(config)
            stack.callback(own.close)
            parts[OUR_ENVIRONMENT] = Fastest(threads_name(config.num_threads), own, {})
        if algo in settings.parts:
            log(f"{algo}: warming up {OURS}")
            ours = Worker(partial(our_agent, config), config.num_threads, config.device)
            stack.callback(ours.close)
            agents[OURS] = Fastest(_our_variant(config), ours, {})
            for peer in settings.peers:
                ways = peer_variants(peer, config)
                if not ways:
                    log(f"{algo}: {peer} does not have it")
                    continue
                workers = {
                    f"{way}, {threads_name(count)}": partial(Worker, make, count, config.device)
                    for way, make in ways.items()
                    for count in thread_counts(config.num_threads)
                }
                log(f"{algo}: the fastest of {len(workers)} ways to run {peer}")
                agents[peer] = fastest(workers, trial_seconds, log)
                stack.callback(agents[peer].runner.close)
        log(f"{algo}: measuring")
        measures = {name: chosen.runner.measure for name, chosen in (parts | agents).items()}
        samples = measure_in_turn(measures, settings.rounds, settings.seconds, log)

        def measured(name: str, chosen: Fastest[Any], facts: Facts | None = None) -> Measured:
            compiling = (facts or chosen.runner).compile_seconds
            rate = Spread(samples[name])
            return Measured(rate, chosen.variant, compiling, chosen.trials, facts)

        return AlgorithmResult(
            config,
            {name: measured(name, part) for name, part in parts.items()},
            {name: measured(name, agent, agent.runner.facts()) for name, agent in agents.items()},
        )


def _our_variant(config: TrainConfig) -> str:
    switches = {"compiled": config.compile, "graph": config.cuda_graphs, "overlap": config.overlap}
    how = [name for name, switch in switches.items() if switch == "on"]
    return ", ".join([config.precision, *how, threads_name(config.num_threads)])


def _measure_encoders(settings: Settings, log: Log) -> list[EncoderTimes]:
    config = settings.train.resolve()
    precisions: tuple[Precision, ...] = ("fp32",)
    if config.precision == "bf16":
        precisions += ("bf16",)
    passes = [
        *registered_encoders(config.device, precisions, settings.encoder_batch),
        *image_models(settings.image_models, config.device, precisions, log),
    ]
    return measure_encoders(passes, settings.rounds, settings.seconds / 4, config.num_threads, log)
