"""Reports of given content: figures, numbers and page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from envs.errors import UserError
from rlcnn.report import (
    ArmFacts,
    Drawing,
    Film,
    Levels,
    Report,
    RunCurve,
    RunResult,
    Transfer,
    compare,
    draw,
    file_names,
    render,
    write_report,
)
from rlcnn.report.page import breakable, lead
from rlcnn.stats import (
    AGGREGATES,
    Curves,
    difference_estimate,
    interval_estimates,
    judge,
    transfer_metrics,
)

ARMS = ("scratch", "frozen:<b>balls</b>&more")
GAMES = ("Pong", "Break out/2")
RNG = np.random.default_rng(0)
SCORES = {arm: place + RNG.normal(0, 0.1, (5, 2)) for place, arm in enumerate(ARMS)}


def make_report() -> Report:
    runs = tuple(
        RunResult(game, arm, seed, "done", SCORES[arm][seed, place], 1.0, 30, 1000, 60.0, 17.0)
        for seed in range(5)
        for place, game in enumerate(GAMES)
        for arm in ARMS
    )
    steps = np.array([250.0, 500.0, 750.0, 1000.0])
    return Report(
        title="Pong & more",
        games=GAMES,
        arms=tuple(ArmFacts(arm, "nature", "trained") for arm in ARMS),
        control=ARMS[0],
        runs=runs,
        verdicts=(judge(SCORES, ARMS[1], ARMS[0]),),
        unit="human-normalised score",
        comparison=compare(SCORES, ARMS[0], human=True, reps=50),
        curves={
            game: {
                arm: tuple(RunCurve(s, steps, SCORES[arm][s, 0] * steps / 1000) for s in range(5))
                for arm in ARMS
            }
            for game in GAMES
        },
        curves_of="the evaluations during training",
        levels={"Pong": Levels(0.0, 1.0), "Break out/2": Levels(0.0, 1e6)},
        facts={"began": "once <upon> a time"},
        command="scripts/compare_encoders.py --arms 'a<b'",
    )


@pytest.fixture(scope="module")
def report() -> Report:
    return make_report()


@pytest.fixture(scope="module")
def drawings(report: Report) -> Mapping[str, Drawing]:
    return draw(report)


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_every_figure_is_drawn_as_svg_and_png_with_a_text_for_it(
    drawings: Mapping[str, Drawing],
) -> None:
    assert set(drawings) == {
        *("curve-Pong", "curve-Break-out-2", "scores-Pong", "scores-Break-out-2"),
        *("difference", "improvement", "profile", "profile-difference"),
        *("aggregate-IQM", "aggregate-mean"),
        *("aggregate-median", "aggregate-optimality-gap"),
    }
    for drawing in drawings.values():
        assert drawing.svg.lstrip().startswith(b"<?xml")
        assert drawing.png.startswith(b"\x89PNG")
        assert all(arm in drawing.alt for arm in ARMS[1:])


def test_the_same_report_is_the_same_to_the_byte(
    report: Report, drawings: Mapping[str, Drawing]
) -> None:
    again = draw(replace(make_report(), games=GAMES[:1], comparison=None))
    assert again == {name: drawings[name] for name in ("curve-Pong", "scores-Pong", "difference")}
    assert render(make_report(), drawings) == render(report, drawings)


@pytest.mark.slow
def test_all_figures_of_the_same_report_are_the_same_to_the_byte(
    drawings: Mapping[str, Drawing],
) -> None:
    assert draw(make_report()) == drawings


def test_aggregates_are_those_of_the_statistics(
    report: Report, drawings: Mapping[str, Drawing]
) -> None:
    page = Page(render(report, drawings)).text
    for name, aggregate in AGGREGATES.items():
        for arm, estimate in interval_estimates(SCORES, aggregate, reps=50).items():
            # Between 0 and 2 all of them, so that they are written with two decimals.
            text = f"{estimate.point:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
            assert text.replace("-", "\N{MINUS SIGN}") in page, (name, arm)
        # Between -1 and 1, and none of them nearly 0.
        less = difference_estimate(SCORES, ARMS[1], ARMS[0], aggregate, reps=50)
        text = f"{less.point:+.2f} [{less.low:+.2f}, {less.high:+.2f}]"
        assert text.replace("-", "\N{MINUS SIGN}") in page, name


def test_a_profile_has_a_difference_too(drawings: Mapping[str, Drawing]) -> None:
    # All runs of the one arm lie above all of the other's.
    assert f"{ARMS[1]}: at most +1.00, at " in drawings["profile-difference"].alt


def test_p_values_are_marked_as_for_one_pair_if_there_are_several(report: Report) -> None:
    (verdict,) = report.verdicts
    third = replace(verdict, treatment="third")
    arms = (*report.arms, ArmFacts("third", "nature", "trained"))
    several = replace(report, verdicts=(verdict, third), arms=arms, comparison=None)
    assert "p, for this pair alone" in Page(render(several, {})).text
    assert "for this pair alone" not in Page(render(report, {})).text


def test_the_optimality_gap_is_shown_on_the_humans_scale_only() -> None:
    assert "optimality gap" in compare(SCORES, ARMS[0], human=True, reps=2).aggregates
    assert "optimality gap" not in compare(SCORES, ARMS[0], human=False, reps=2).aggregates


def test_the_verdict_comes_first_on_a_page(report: Report, drawings: Mapping[str, Drawing]) -> None:
    text = Page(render(report, drawings)).text
    (verdict,) = report.verdicts
    assert verdict.finding == "better"
    place = text.index(verdict.sentence)
    said = text.index(f"{verdict.treatment} is better than {verdict.control}")
    assert text.index("Pong & more") < said < place < text.index("Returns from the evaluations")
    for note in verdict.notes:
        assert note[1:] in text


def test_one_sentence_sums_up_several_verdicts(report: Report) -> None:
    (verdict,) = report.verdicts
    findings = ("worse", "inconclusive", "worse", "suggestively better")
    arms = ("a", "b", "c", "d")
    verdicts = tuple(
        replace(verdict, treatment=arm, finding=finding)  # type: ignore[arg-type]
        for arm, finding in zip(arms, findings, strict=True)
    )
    sentence = "Against scratch: d may be better; a and c are worse; for b it is not settled."
    assert lead(verdicts) == sentence
    facts = tuple(ArmFacts(arm, "nature", "trained") for arm in ("scratch", *arms))
    given = replace(report, verdicts=verdicts, arms=facts, comparison=None)
    text = Page(render(given, {})).text
    assert text.index(sentence) < text.index(verdict.sentence)
    nothing = replace(verdict, finding="no arm learned")
    assert lead([nothing, *verdicts]).startswith("No arm learned")


def test_a_page_is_self_contained(report: Report, drawings: Mapping[str, Drawing]) -> None:
    page = Page(render(report, drawings))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "form"}
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "href", "data", "action", "poster"):
            value = attributes.get(name)
            if value is not None:
                assert value.startswith(("data:", "#")), (tag, name, value[:80])
        assert not any(name.startswith("on") for name in attributes)
    style = render(report, drawings).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    images = page.all("img")
    assert len(images) == len(drawings)
    assert all(image["alt"] for image in images)
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    words = {name for name in identifiers if name and name.startswith("word-")}
    assert {f"#{name}" for name in {*identifiers} - words} == {a["href"] for a in page.all("a")}
    assert words == {a["popovertarget"] for a in page.all("button")}
    assert len(identifiers) == len(set(identifiers))


def test_an_arm_is_named_once_above_its_gains(report: Report) -> None:
    curves = {arm: Curves.of([1, 2], SCORES[arm]) for arm in ARMS}
    metrics = transfer_metrics({"Pong": curves[ARMS[1]]}, {"Pong": curves[ARMS[0]]}, 0.5)
    rows = (
        Transfer(ARMS[1], "agent steps", "steps", metrics),
        Transfer(ARMS[1], "wall time", "seconds", None, "no run has a <known> time"),
        Transfer("third", "agent steps", "steps", metrics),
    )
    arms = (*report.arms, ArmFacts("third", "nature", "trained"))
    html = render(Report("t", GAMES, arms, ARMS[0], (), transfer=rows), {})
    page = Page(html[html.index('<section id="transfer">') : html.index('<section id="arms">')])
    assert page.text.count(ARMS[1]) == 1
    assert page.text.count("third") == 1
    headings = [th for th in page.all("th") if th.get("scope") == "rowgroup"]
    assert [th["colspan"] for th in headings] == ["7", "7"]
    assert len(page.all("tbody")) == 2
    # A missing result takes the place of all figures, and is escaped.
    assert [td["colspan"] for td in page.all("td") if "colspan" in td] == ["6"]
    assert "no run has a <known> time" in page.text


def test_names_and_reasons_are_escaped(report: Report, drawings: Mapping[str, Drawing]) -> None:
    first, *others = report.runs
    failed = replace(
        first, state="failed", score=None, reason='<script>alert("1")</script> {{ 7 * 7 }}'
    )
    html = render(replace(report, runs=(failed, *others)), drawings)
    page = Page(html)
    assert not page.all("b")
    assert not page.all("script")
    assert failed.reason in page.text
    assert ARMS[1] in page.text
    assert "once <upon> a time" in page.text
    assert report.command in page.text


def test_an_empty_study_has_a_page(report: Report) -> None:
    waiting = tuple(replace(run, state="waiting", score=None) for run in report.runs)
    empty = Report(
        title="Pong",
        games=GAMES,
        arms=report.arms,
        control=ARMS[0],
        runs=waiting,
        no_verdict="there is no verdict before all is done",
    )
    assert draw(empty) == {}
    page = Page(render(empty, {}))
    assert "No verdict yet" in page.text
    assert "There is no verdict before all is done." in page.text
    assert "0 of 20 runs done, 20 not finished" in page.text


def test_films_are_linked_or_embedded_or_left_out(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "1.mp4"
    path.write_bytes(b"a film")
    film = Film("Pong", "scratch", "seed 1", b"\x89PNG", path, "runs/x/videos/1 & 2.mp4")
    filmed = replace(report, films=(film,))
    linked, embedded, strips = (
        Page(render(filmed, {}, films))
        for films in ("linked", "embedded", "strips")  # type: ignore[arg-type]
    )
    addresses = [a["href"] for a in linked.all("a") if a["href"] and a["href"][0] != "#"]
    assert addresses == ["runs/x/videos/1 & 2.mp4"]
    assert not linked.all("video")
    (video,) = embedded.all("video")
    assert video["src"] == "data:video/mp4;base64,YSBmaWxt"
    assert not strips.all("video")
    assert all(a["href"] and a["href"][0] == "#" for a in strips.all("a"))
    for page in (linked, embedded, strips):
        assert len(page.all("img")) == 1


def test_an_arm_whose_runs_all_failed_is_in_the_curves(report: Report) -> None:
    steps = np.array([500.0, 1000.0])
    curves = {
        ARMS[0]: tuple(RunCurve(s, steps, steps) for s in range(2)),
        ARMS[1]: tuple(RunCurve(s, steps[:0], steps[:0], failed_as=-7.0) for s in range(2)),
    }
    given = replace(report, curves={"Pong": curves}, comparison=None, verdicts=(), runs=())
    (drawing,) = draw(given).values()
    assert f"{ARMS[1]} \N{MINUS SIGN}7.00 (2 runs, all alike)" in drawing.alt


def test_a_failed_run_is_part_of_the_mean_that_a_figure_shows(report: Report) -> None:
    first, *others = (run for run in report.runs_of("Pong", ARMS[0]))
    failed = replace(first, state="failed", score=None)
    given = replace(
        report,
        runs=(failed, *others),
        levels={"Pong": Levels(random=-5.0)},
        curves={},
        comparison=None,
        verdicts=(),
    )
    (drawing,) = draw(given).values()
    scores = [run.score for run in others if run.score is not None]
    mean = (sum(scores) - 5) / 5
    expected = f"{ARMS[0]}: mean {mean:.2f}, 1 failed (".replace("-", "\N{MINUS SIGN}")
    assert expected in drawing.alt
    assert (
        "and of the crosses: runs that failed" in Page(render(given, {"scores-Pong": drawing})).text
    )


def test_dollars_in_names_are_no_formula(report: Report) -> None:
    arm = r"frozen:$\frac{$"
    runs = tuple(replace(run, arm=arm, score=1.0) for run in report.runs_of("Pong", ARMS[0]))
    arms = (ArmFacts(arm, "nature", "trained"),)
    given = Report(title="$x_{$", games=("Pong",), arms=arms, control=arm, runs=runs)
    (drawing,) = draw(given).values()
    assert arm in drawing.alt


def test_a_report_replaces_the_one_before(report: Report, tmp_path: Path) -> None:
    # Of all figures only the differences, and then none.
    first = replace(report, curves={}, comparison=None, runs=())
    page, _ = write_report(first, tmp_path)
    assert page == tmp_path / "report.html"
    assert "difference.svg" in {path.name for path in (tmp_path / "figures").iterdir()}
    (tmp_path / "figures" / "notes.txt").touch()
    film = Film("Pong", "scratch", "", b"\x89PNG")
    write_report(replace(first, verdicts=(), films=(film,)), tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"notes.txt", "film-Pong-scratch.png"}


def test_a_place_that_cannot_be_written_is_one_line(report: Report, tmp_path: Path) -> None:
    (tmp_path / "figures").touch()
    with pytest.raises(UserError, match=r"^cannot write [^\n]+figures"):
        write_report(replace(report, curves={}, comparison=None, verdicts=(), runs=()), tmp_path)


def test_file_names_differ_where_names_do() -> None:
    names = ["Pong", "pong", "a/b", "a:b", "é", "ALE/Pong-v5"]
    files = file_names(names)
    assert len({file.lower() for file in files.values()}) == len(names)
    assert not any(set(file) & set("/:\\ ") for file in files.values())
    long = [f"{'x' * 300} {end}" for end in "ab"]
    kept = file_names(long).values()
    assert len(set(kept)) == 2
    assert max(map(len, kept)) < 240


def test_long_names_can_break_and_keep_their_text() -> None:
    name = f"frozen:<b>@{'weights' * 10}.of_a&b"
    html = str(breakable(name))
    assert Page(html).text == name
    assert "<b>" not in html
    assert max(len(part) for part in Page(html.replace("<wbr>", " ")).text.split()) <= 20
    assert breakable("scratch, frozen-random") == "scratch, frozen-random"
