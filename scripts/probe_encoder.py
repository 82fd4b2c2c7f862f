"""Evaluates the frozen features of an encoder by linear classifiers: see --help."""

from __future__ import annotations

from agents.evaluate.players import load_players
from rlcnn.config.cli import parse_options
from rlcnn.config.script import run_script
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.progress import make_console
from rlcnn.supervised.evaluation.probing import ProbeConfig, run_probe


def main(arguments: list[str]) -> None:
    """Parses a command line, fits and prints the result."""
    config = parse_options(ProbeConfig, arguments)
    config.validate()
    players = load_players(config.players, config.frames, seed=config.seed, device=config.device)
    result = run_probe(config, players, make_console())
    print(*result.lines(), sep="\n")
    if config.json is not None:
        write_json_atomic(config.json, result.to_json())


if __name__ == "__main__":
    run_script(main)
