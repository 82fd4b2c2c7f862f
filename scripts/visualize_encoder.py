"""Draws the filters of a network and its answers to images: see --help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace

from rlcnn.config.cli import parse_options
from rlcnn.config.script import run_script
from rlcnn.runs.progress import make_console
from rlcnn.visualize.gallery.options import PictureConfig, command_line


@dataclass(frozen=True)
class Options(PictureConfig):
    """Draw pictures of a network as PNG and SVG, with one HTML gallery of all of them.

    Examples:
      python scripts/visualize_encoder.py filters activations --run runs/pong
      python scripts/visualize_encoder.py neighbours --encoder resnet18 --data folder:photos
      python scripts/visualize_encoder.py charts --out pictures/charts
    """


def main(arguments: list[str]) -> None:
    """Parses a command line, draws and writes the gallery."""
    config: PictureConfig = parse_options(Options, arguments, Options())
    config.validate()
    # After the command line: these take seconds.
    from agents.evaluate.pictures import make_source
    from rlcnn.visualize.gallery.pictures import make_sheets
    from rlcnn.visualize.sheets import track_gallery, write_gallery

    console = make_console()
    source = make_source(config)
    config = source.config
    command = command_line("visualize_encoder.py", arguments)
    sheets = [replace(sheet, command=command) for sheet in make_sheets(source, console)]
    heading = ", ".join(config.pictures)
    page = write_gallery(sheets, config.out, heading=f"Pictures: {heading}", facts=source.facts())
    options = dataclasses.asdict(config)
    track_gallery(page, sheets, config.track, project=config.project, options=options)
    for sheet in sheets:
        print(f"wrote {config.out / sheet.name}.png, .svg")
    print(f"wrote {page}")


if __name__ == "__main__":
    run_script(main)
