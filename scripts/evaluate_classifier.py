"""Evaluates classifiers, alone or as an ensemble, on labelled images: see --help."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from rlcnn.config.cli import parse_options
from rlcnn.config.script import run_script
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.progress import make_console
from rlcnn.supervised.evaluation.options import EvaluationConfig


@dataclass(frozen=True)
class Options(EvaluationConfig):
    """Evaluate a classifier on labelled images; the predictions of several are averaged.

    Examples:
      python scripts/evaluate_classifier.py runs/pretrained-pong
      python scripts/evaluate_classifier.py imagenet --encoder resnet18 --data folder:photos
      python scripts/evaluate_classifier.py runs/a runs/b --crops 10 --plots pictures
    """


def main(arguments: list[str]) -> None:
    """Parses a command line, evaluates and prints the result."""
    config = parse_options(Options, arguments)
    config.validate()
    # After the command line: it takes seconds.
    from agents.evaluate.players import load_players
    from rlcnn.supervised.evaluation.classifiers import evaluate_classifiers

    console = make_console()
    players = partial(load_players, device=config.device)
    result = evaluate_classifiers(config, players, console)
    print(*result.lines(), sep="\n")
    if config.json is not None:
        write_json_atomic(config.json, result.to_json())
    if config.plots is not None:
        for path in result.write_plots(config.plots):
            console.print(f"wrote {path}")


if __name__ == "__main__":
    run_script(main)
