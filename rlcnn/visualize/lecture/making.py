"""Makes the parts of the lecture from their commands, and the page with all of them.

A part is a directory with its PNG and SVG files and ``part.json``, which is written last.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.errors import UserError
from rlcnn.config.cli import parse_options
from rlcnn.encoders.layer_table import describe_encoder
from rlcnn.report.page import templates
from rlcnn.report.style import duration
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import disk_errors, read_json, write_atomic, write_json_atomic
from rlcnn.runs.progress import print_line
from rlcnn.supervised.command_line import parse_pretraining
from rlcnn.supervised.evaluation.options import ProbeConfig
from rlcnn.supervised.evaluation.probing import run_probe
from rlcnn.supervised.pretraining import pretrain, resume_pretraining
from rlcnn.visualize.gallery.options import PAGE, PictureConfig
from rlcnn.visualize.gallery.pictures import make_sheets
from rlcnn.visualize.gallery.source import Source
from rlcnn.visualize.lecture.options import PART_NAMES, LectureConfig, PartName
from rlcnn.visualize.lecture.parts import PARTS, Step
from rlcnn.visualize.sheets import LARGEST_SVG, rendered

RECORD = "part.json"
MakeSource = Callable[[PictureConfig], Source]

# What a training must have in common with the one that a part asks for.
_COMPARED = ("data", "recipe", "encoder", "encoder_options", "epochs", "train_size", "mode")


@dataclass(frozen=True)
class Item:
    """What a command made: a figure, a text, or a run alone.

    Attributes:
        command: the command.
        title: of the figure or of the text; empty for a run.
        caption: of the figure.
        figure: name of its files, without an ending.
        text: what the command printed.
    """

    command: str
    title: str = ""
    caption: str = ""
    figure: str = ""
    text: str = ""


@dataclass(frozen=True)
class _Made:
    item: Item
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def list_parts(config: LectureConfig) -> list[str]:
    """A line for each part: its name, its minutes, and whether it can be made."""
    lines = []
    for name in PART_NAMES:
        part = PARTS[name]
        missing = part.missing(config)
        state = f"needs {'; '.join(missing)}" if missing else "can be made"
        if _record(config.out / name) is not None:
            state = "finished"
        lines.append(f"{name:<12}{part.minutes:>5g} min  {state}")
    return lines


def make_lecture(config: LectureConfig, make_source: MakeSource, console: Console) -> Path:
    """Makes the parts of a valid configuration whose data are given, and the page.

    A part that was finished by the same commands is kept. A part that fails leaves nothing, and the
    others are made. The page is written anew after each part.

    Args:
        config: what to make, and from what.
        make_source: loads the network and the images of pictures.
        console: shows progress, and a line for each part.

    Returns:
        The page.

    Raises:
        UserError: no part could be made, or some failed; the line names the first.
        TrainingStopped: a stop was requested during a training; it goes on by the same call.
    """
    failed: list[str] = []
    lines: list[str] = []
    for name in config.only or PART_NAMES:
        began = time.monotonic()
        try:
            state = _make_part(name, config, make_source, console)
        except UserError as error:
            failed.append(f"{name}: {error}")
            state = f"failed: {error}"
        if state == "made":
            write_page(config.out)
            state = f"made in {duration(time.monotonic() - began)}"
        lines.append(f"{name}: {state}")
        print_line(console, lines[-1])
    if not any((config.out / name / RECORD).exists() for name in PART_NAMES):
        raise UserError(f"no part was made. {lines[0]}")
    page = write_page(config.out)
    if failed:
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise UserError(f"{page} lacks parts{others}: {failed[0]}")
    return page


def _make_part(
    name: PartName, config: LectureConfig, make_source: MakeSource, console: Console
) -> str:
    """Makes a part unless it is finished; returns what became of it."""
    directory, part = config.out / name, PARTS[name]
    record = _record(directory)
    if missing := part.missing(config):
        if record is not None:
            return "kept"
        return f"skipped: give {'; '.join(missing)}"
    steps = part.steps(config)
    commands = [step.command for step in steps]
    if record is not None and record["commands"] == commands and not config.force:
        return "kept"
    print_line(console, f"{name}: about {part.minutes:g} minutes")
    made: list[_Made] = []
    for step in steps:
        made += _RUN[step.script](step, make_source, console)
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    for one in made:
        for file, content in one.files.items():
            write_atomic(directory / file, content)
    items = [dataclasses.asdict(one.item) for one in made]
    write_json_atomic(directory / RECORD, {"commands": commands, "items": items})
    return "made"


def write_page(directory: Path) -> Path:
    """Writes the page of all finished parts, with their figures in it."""
    parts = []
    for name in PART_NAMES:
        record = _record(directory / name)
        if record is not None:
            items = [Item(**item) for item in record["items"]]
            images = {i.figure: _image(directory / name / i.figure) for i in items if i.figure}
            parts.append((name, PARTS[name], items, images))
    page = directory / PAGE
    write_atomic(page, templates().get_template("lecture.html").render(parts=parts))
    return page


def _image(path: Path) -> tuple[bytes, str]:
    """The content of a figure and its kind: SVG unless it is large."""
    drawn = path.with_name(f"{path.name}.svg").read_bytes()
    if len(drawn) <= LARGEST_SVG:
        return drawn, "image/svg+xml"
    return path.with_name(f"{path.name}.png").read_bytes(), "image/png"


def _record(directory: Path) -> dict[str, Any] | None:
    """The record of a finished part; None if it is not finished or damaged."""
    try:
        record = read_json(directory / RECORD)
        figures = [Item(**item).figure for item in record["items"]]
        json.dumps(record["commands"])
    except (UserError, KeyError, TypeError):
        return None
    files = [directory / f"{name}.{kind}" for name in figures if name for kind in ("png", "svg")]
    return record if all(file.is_file() for file in files) else None


# -- commands --------------------------------------------------------------------------------------


def _describe(step: Step, make_source: MakeSource, console: Console) -> list[_Made]:
    lines = describe_encoder(*_described(step))
    name = step.arguments[1].removesuffix(":logits")
    title = f"Layers of {name}: output shapes, parameters and multiply-accumulates"
    return [_Made(Item(step.command, title, text="\n".join(lines)))]


def _described(step: Step) -> tuple[str, dict[str, Any], tuple[int, ...], int]:
    # As scripts/describe_encoder.py reads it; the parts give no options of encoders.
    words = list(step.arguments)
    shape = words[words.index("--shape") + 1 :][:3] if "--shape" in words else []
    classes = words[words.index("--classes") + 1] if "--classes" in words else "0"
    return words[1], {}, tuple(map(int, shape)), int(classes)


def _draw(step: Step, make_source: MakeSource, console: Console) -> list[_Made]:
    config = parse_options(PictureConfig, step.arguments, PictureConfig())
    config.validate()
    made = []
    for sheet in make_sheets(make_source(config), console):
        drawing = rendered(sheet)
        files = {f"{sheet.name}.png": drawing.png, f"{sheet.name}.svg": drawing.svg}
        made.append(_Made(Item(step.command, sheet.title, sheet.caption, sheet.name), files))
    return made


def _train(step: Step, make_source: MakeSource, console: Console) -> list[_Made]:
    """Trains, or resumes a training that did not end; a finished one is kept."""
    request = parse_pretraining(step.arguments)
    run = request.run_dir
    assert run is not None
    if not (run / "config.json").exists():
        pretrain(request.config, run, console=console)
        return [_Made(Item(step.command))]
    with RunDirectory.open(run) as opened:
        asked, own = request.config.to_json(), opened.config.get("pretraining", {})
        finished = opened.summary() is not None
    for name in _COMPARED:
        if own.get(name) != asked[name]:
            raise UserError(
                f'the run "{run}" has {name} {own.get(name)}, not {asked[name]}: give another'
                " --runs DIR, or remove that run"
            )
    if not finished:
        resume_pretraining(run, console=console)
    return [_Made(Item(step.command))]


def _probe(step: Step, make_source: MakeSource, console: Console) -> list[_Made]:
    config = parse_options(ProbeConfig, step.arguments)
    config.validate()
    result = run_probe(config, {}, console)
    return [_Made(Item(step.command, "Accuracies", text="\n".join(result.lines())))]


_RUN: Mapping[str, Callable[[Step, MakeSource, Console], list[_Made]]] = {
    "describe_encoder": _describe,
    "visualize_encoder": _draw,
    "pretrain_encoder": _train,
    "probe_encoder": _probe,
}
