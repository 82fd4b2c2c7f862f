"""Sheets on disk, in their gallery and in a tracker."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from envs.errors import UserError
from rlcnn.report.style import styled
from rlcnn.visualize.sheets import Sheet, draw_image, new_sheet, track_gallery, write_gallery


def sheets() -> list[Sheet]:
    with styled():
        drawn = []
        for name, title in (("one", "A <first> one"), ("two", "A second one")):
            figure = new_sheet(2, 2)
            draw_image(figure.subplots(), torch.full((3, 4, 4), 200, dtype=torch.uint8), "4x4")
            drawn.append(Sheet(name, title, figure, f"How to read {name}.", f"python {name}.py"))
    return drawn


def test_a_gallery_holds_every_picture_with_its_title_caption_and_command(tmp_path: Path) -> None:
    page = write_gallery(sheets(), tmp_path / "new", heading="Both", facts={"data": "mnist"})
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == ["index.html", "one.png", "one.svg", "two.png", "two.svg"]
    text = page.read_text()
    for expected in ("A &lt;first&gt; one", "How to read two.", "python one.py", "mnist"):
        assert expected in text
    # Self-contained: no file and no address is asked for.
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    # The title is drawn: pixels near the upper left are ink.
    pixels = np.asarray(Image.open(page.parent / "one.png").convert("L"))
    assert pixels[:60, :300].min() < 60


def test_equal_pictures_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_gallery(sheets(), tmp_path / name, heading="Both")
    for file in ("one.png", "one.svg", "index.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_directory_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_gallery(sheets(), tmp_path / "file", heading="Both")


def test_a_tracker_gets_the_pictures_and_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, Any] = {}
    run = SimpleNamespace(
        log=lambda values, **_: logged.update(values), summary={}, finish=lambda: None
    )
    monkeypatch.setattr("rlcnn.report.tracked.start_wandb", lambda *_, **__: run)
    drawn = sheets()
    page = write_gallery(drawn, tmp_path, heading="Both")
    track_gallery(page, drawn, "disabled", project="rlcnn", options={})
    assert not logged
    track_gallery(page, drawn, "offline", project="rlcnn", options={"data": "mnist"})
    assert set(logged) == {"pictures/one", "pictures/two", "pictures/page"}
