"""A benchmark's result with invented round figures."""

from __future__ import annotations

from agents.benchmark.encoder_table import EncoderTimes
from agents.benchmark.suite import AlgorithmResult, BenchmarkResult, Measured, Settings
from agents.hyperparameters import Algorithm
from agents.measure.timing import Spread
from agents.measure.workers import Facts

FACTS = Facts(
    compile_seconds=30.0,
    peak_host_bytes=2_000_000_000,
    peak_device_bytes=None,
    replay_bytes_per_transition=7_080.0,
)


def measured(*rates: float, variant: str = "2 threads", facts: Facts | None = None) -> Measured:
    return Measured(Spread(rates), variant, compile_seconds=0.0, facts=facts)


def result_of(algo: Algorithm = "ppo") -> AlgorithmResult:
    """Two rounds; in the second the machine was half as fast."""
    return AlgorithmResult(
        Settings().agent_config(algo),
        ceilings={
            "environment": measured(8_000, 4_000),
            "inference": measured(8_000, 4_000),
            "update": measured(16_000, 8_000),
            "AtariVecEnv": measured(7_000, 3_500),
        },
        agents={
            "ours": measured(1_500, 800, facts=FACTS),
            "sb3": measured(500, 200, variant="DummyVecEnv, 2 threads", facts=FACTS),
        },
    )


def whole_result() -> BenchmarkResult:
    rows = [
        EncoderTimes(
            "nature", (256, 4, 84, 84), "bf16", 1_684_128, Spread((10, 12)), Spread((20,) * 2)
        )
    ]
    return BenchmarkResult(Settings(), {"ppo": result_of("ppo"), "dqn": result_of("dqn")}, rows)
