"""Evaluates the frozen features of an encoder by linear classifiers: see --help."""

from __future__ import annotations

from dataclasses import dataclass

from rlcnn.config.cli import parse_options
from rlcnn.config.script import run_script
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.progress import make_console
from rlcnn.supervised.evaluation.options import ProbeConfig


@dataclass(frozen=True)
class Options(ProbeConfig):
    """Fit linear classifiers to the features of a frozen encoder, and of random encoders.

    Examples:
      python scripts/probe_encoder.py --encoder resnet18 --weights imagenet --data cifar10
      python scripts/probe_encoder.py --encoder resnet18 --data cifar10 --node-sweep
      python scripts/probe_encoder.py --encoder nature --weights runs/balls --foresee Pong
    """


def main(arguments: list[str]) -> None:
    """Parses a command line, fits and prints the result."""
    config = parse_options(Options, arguments)
    config.validate()
    # After the command line: it takes seconds.
    from agents.evaluate.players import load_players
    from rlcnn.supervised.evaluation.foresight import Foresight, run_foresight
    from rlcnn.supervised.evaluation.node_sweep import NodeSweep, run_node_sweep
    from rlcnn.supervised.evaluation.probing import ProbeResult, run_probe

    players = load_players(config.players, config.frames, config.seed, config.device)
    result: Foresight | NodeSweep | ProbeResult
    if config.foresee:
        result = run_foresight(config, players, make_console())
    elif config.node_sweep:
        result = run_node_sweep(config, players, make_console())
    else:
        result = run_probe(config, players, make_console())
    print(*result.lines(), sep="\n")
    if config.json is not None:
        write_json_atomic(config.json, result.to_json())


if __name__ == "__main__":
    run_script(main)
