"""Writes a report: the page and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlcnn.report.content import Report
from rlcnn.report.page import Films, render
from rlcnn.report.plots import draw, file_names
from rlcnn.report.style import Drawing
from rlcnn.runs.files import disk_errors, write_atomic

PAGE = "report.html"
FIGURES = "figures"


def write_report(
    report: Report, directory: Path, films: Films = "linked"
) -> tuple[Path, dict[str, Drawing]]:
    """Draws the figures, writes them as SVG and PNG with the film strips, and writes the page.

    It replaces each file whole and removes the figures of an earlier report from ``figures/``.

    Returns:
        The page, ``report.html``, and the figures.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    drawings = draw(report)
    strips = {film.key.replace("/", " "): film.strip for film in report.films if film.strip}
    write_figures(drawings, strips, directory)
    page = directory / PAGE
    write_atomic(page, render(report, drawings, films))
    return page, drawings


def write_figures(
    drawings: Mapping[str, Drawing], strips: Mapping[str, bytes], directory: Path
) -> None:
    """Writes figures and film strips, by name, in place of those of an earlier report."""
    files: dict[str, bytes] = {}
    for name, drawing in drawings.items():
        files |= {f"{name}.svg": drawing.svg, f"{name}.png": drawing.png}
    for name, file in file_names(list(strips)).items():
        files[f"film-{file}.png"] = strips[name]
    figures = directory / FIGURES
    with disk_errors(figures):
        figures.mkdir(exist_ok=True)
        for name, content in files.items():
            write_atomic(figures / name, content)
        for path in figures.iterdir():
            if path.suffix in (".svg", ".png") and path.name not in files:
                path.unlink()
