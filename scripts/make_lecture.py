"""Makes the figures of a course on convolutional networks, as one page: see --help."""

from __future__ import annotations

from dataclasses import dataclass

from rlcnn.config.cli import parse_options
from rlcnn.config.script import run_script
from rlcnn.runs.progress import make_console
from rlcnn.visualize.lecture.options import LectureConfig


@dataclass(frozen=True)
class Options(LectureConfig):
    """Make the figures of a course on convolutional networks, each with its command, as one page.

    Examples:
      python scripts/make_lecture.py --out lecture --list
      python scripts/make_lecture.py --out lecture --mnist data --cifar10 data --agent runs/pong
      python scripts/make_lecture.py --out lecture --weights imagenet --only filters style
    """


def main(arguments: list[str]) -> None:
    """Parses a command line, makes the parts and prints the page."""
    config = parse_options(Options, arguments)
    config.validate()
    # After the command line: these take seconds.
    from agents.evaluate.pictures import make_source
    from rlcnn.visualize.lecture.making import list_parts, make_lecture

    if config.list:
        print(*list_parts(config), sep="\n")
        return
    print(f"wrote {make_lecture(config, make_source, make_console())}")


if __name__ == "__main__":
    run_script(main)
