"""The page of a study in a real browser without a network, as wide as a phone and as a desk's."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.study_files import make_plan, write_study

from agents.study.plan import StudyRun
from agents.study.runner import run_study

pytestmark = pytest.mark.browser

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = {"phone": (390, 844), "desktop": (1280, 800), "wide": (1600, 1000)}
ARMS = ("scratch", "frozen-random", "scratch:impala", "frozen-random:resnet18:layer2,pooling=mean")
GAMES = ("ALE/Pong-v5", "ALE/Breakout-v5")
LABELS = ("scratch", "frozen-random", "scratch, impala", "frozen-random, resnet18:layer2")
LEVELS = dict(zip(LABELS, (12.0, -17.0, 14.0, -12.0), strict=True))


def ended(run: StudyRun) -> float | str:
    if (run.arm, run.seed, run.game) == ("frozen-random", 1, "Pong"):
        return "failed"
    return LEVELS[run.arm] + 1.3 * run.seed + (30.0 if run.game == "Breakout" else 0.0)


def unfinished(run: StudyRun) -> float | str:
    return {3: "begun", 4: "waiting"}.get(run.seed, ended(run))


def brightness(png: bytes) -> float:
    from PIL import Image

    return float(np.median(np.asarray(Image.open(io.BytesIO(png)).convert("L"))))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        if found is None and not Path(own).exists():
            pytest.skip(f"there is no browser: none of {', '.join(CHROMIUM)}, nor Playwright's own")
        # Its sandbox is refused to the superuser, as whom containers run.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        path = None if Path(own).exists() else found
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["whole", "unfinished"])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = make_plan(*ARMS, games=GAMES)
    ends = ended if request.param == "whole" else unfinished
    path = write_study(tmp_path_factory.mktemp(request.param) / "study", plan, ends, film=True)
    console = Console(file=io.StringIO())

    def no_launcher(jobs: int) -> Any:
        raise AssertionError(f"{jobs} runs would be done")

    run_study(plan, path, no_launcher, console=console, report_only=True)
    return path / "report.html"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen_shows_its_verdict_and_needs_no_network(
    browser: Any, page_file: Path, size: str, scheme: str, tmp_path: Path
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())

    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert [url for url in requests if url.startswith("file:")] == [page_file.as_uri()]

    across = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert across[0] <= across[1], "the page scrolls sideways"

    said = page.locator(".lead").first
    assert said.is_visible()
    box = said.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= height, "the verdict is not in the first screen"

    natural = page.evaluate(
        "[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt])"
    )
    assert natural
    assert all(done and wide > 0 and high > 0 and alt for done, wide, high, alt in natural)

    # A word opens its meaning by tap and by keyboard; Escape closes it.
    word, meaning = page.locator("button.word").first, page.locator(".meaning:popover-open")
    word.click()
    assert meaning.is_visible()
    page.keyboard.press("Escape")
    assert meaning.count() == 0
    word.focus()
    page.keyboard.press("Enter")
    assert meaning.is_visible()
    page.keyboard.press("Escape")

    # On a phone, a line above a wide table says that there is more beside.
    hints = page.evaluate("[...document.querySelectorAll('.swipe')].map(e => e.offsetHeight > 0)")
    assert hints
    assert set(hints) == {size == "phone"}

    # A wide screen is used, and figures are as dark as the page.
    if size == "wide":
        assert page.evaluate("document.querySelector('main').clientWidth") > 1500
    bright = brightness(page.locator(".figures img").first.screenshot()) > 128
    assert bright == (scheme == "light")

    # Text in a figure is not much smaller than the text around it.
    shown = page.evaluate("[...document.querySelectorAll('.figures img')].map(i => i.clientWidth)")
    assert min(shown) >= 300

    folder = Path(os.environ.get("RLCNN_SCREENSHOTS", tmp_path))
    name = f"{page_file.parents[1].name}-{size}-{scheme}"
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    page.screenshot(path=folder / f"{name}-first.png")
    assert (folder / f"{name}.png").stat().st_size > 10_000
    context.close()


def test_the_page_can_be_printed(browser: Any, page_file: Path, tmp_path: Path) -> None:
    # As wide as A4 is between its margins, 186 mm of 96 pixels an inch.
    page = browser.new_page(viewport={"width": 703, "height": 1000})
    page.goto(page_file.as_uri())
    folder = Path(os.environ.get("RLCNN_SCREENSHOTS", tmp_path))
    file = folder / f"{page_file.parents[1].name}.pdf"
    page.pdf(path=file, format="A4", print_background=True)
    # The verdict and its box begin on the first page.
    box = page.locator(".lead").first.bounding_box()
    assert box is not None
    assert box["y"] < 900
    assert file.read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("matchMedia('print').matches")
    # On paper nothing can be scrolled: what a box hides would be lost.
    hidden = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth + 1)"
        ".map(b => b.ariaLabel)"
    )
    assert hidden == []
    page.close()
