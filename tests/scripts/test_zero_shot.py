"""Classifying images of classes that a network never saw, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.colour_networks import COLOURS, colour_classifier, draw
from support.picture_files import refused
from support.script_runs import read

pytest.importorskip("gensim", reason='Gensim is not installed: pip install "rlcnn[text]"')

Script = Callable[..., None]

# Between red and blue, red and green, and a dark blue.
UNSEEN = {"dark_blue": (10, 10, 120), "lime": (60, 180, 20), "wine": (150, 20, 60)}
VECTORS = {
    "red": "1 0 0",
    "green": "0 1 0",
    "blue": "0 0 1",
    "wine": "0.9 0 0.2",
    "lime": "0.1 0.8 0",
    "dark": "0 0 0.2",
}


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of each colour that the network does not know; one in four is held out."""
    root = tmp_path_factory.mktemp("unseen")
    for name, colour in UNSEEN.items():
        (root / name).mkdir()
        for seed in range(4):
            draw(root / name / f"{seed}.png", colour, seed, (32, 32))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_classifier(tmp_path_factory.mktemp("runs") / "run", "folder:elsewhere")


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    return write_vectors(tmp_path / "glove.txt")


def write_vectors(path: Path, **changes: str) -> Path:
    lines = {**VECTORS, **changes}
    path.write_text("".join(f"{word} {values}\n" for word, values in lines.items() if values))
    return path


def test_unseen_colours_are_those_of_the_nearest_words(
    run: Path,
    unseen: Path,
    vectors: Path,
    evaluate_classifier: Script,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate_classifier(
        *(run, "--data", f"folder:{unseen}", "--part", "all", "--word-vectors", vectors),
        *("--json", tmp_path / "result.json"),
    )
    result = read(tmp_path / "result.json")
    assert result["word_vectors"] == str(vectors)
    assert (result["images"], result["hit1"], result["hit1_chance"]) == (12, 1.0, 1 / 3)
    assert result["confusion"]["classes"] == sorted(UNSEEN)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("hit@1 100.00% (95% interval ")
    assert lines[1].endswith("; chance 33.33%)")
    assert lines[2].startswith("hit@2 100.00%")
    assert len(lines) == 3
    assert COLOURS.keys().isdisjoint(UNSEEN)


def test_several_networks_are_averaged_and_each_is_reported(
    run: Path,
    unseen: Path,
    vectors: Path,
    evaluate_classifier: Script,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = colour_classifier(tmp_path / "wrong", "folder:elsewhere", wrong=True)
    evaluate_classifier(
        *(run, wrong, run, "--data", f"folder:{unseen}", "--word-vectors", vectors),
        *("--conse-top", 1, "--json", tmp_path / "result.json"),
    )
    result = read(tmp_path / "result.json")
    # A fifth of each class is held out, at least one image.
    assert (result["images"], result["hit1"]) == (3, 1.0)
    assert [member["hit1"] for member in result["members"]] == [1.0, 0.0, 1.0]
    assert capsys.readouterr().out.splitlines()[-1].startswith("together: hit@1 100.00%")


def test_a_seen_class_without_a_vector_is_left_out(
    run: Path,
    unseen: Path,
    evaluate_classifier: Script,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    some = write_vectors(tmp_path / "some.txt", green="")
    evaluate_classifier(
        *(run, "--data", f"folder:{unseen}", "--word-vectors", some),
        *("--json", tmp_path / "result.json"),
    )
    said = " ".join(capsys.readouterr().err.split())
    assert '1 of 3 seen classes has no word vector and is left out: class "green"' in said
    # Lime, whose images are green, is not found by red and blue.
    assert read(tmp_path / "result.json")["hit1"] == pytest.approx(2 / 3)


def test_missing_words_are_one_line(
    run: Path, unseen: Path, evaluate_classifier: Script, tmp_path: Path
) -> None:
    data = ("--data", f"folder:{unseen}")
    for word, said in (
        ("wine", 'the word vectors lack a word of class "wine"'),
        ("dark", 'the word vectors lack a word of class "dark_blue"'),
    ):
        lacking = write_vectors(tmp_path / "lacking.txt", **{word: ""})
        with refused(said, "give the folder another name"):
            evaluate_classifier(run, *data, "--word-vectors", lacking)
    lacking = write_vectors(tmp_path / "lacking.txt", wine="", lime="")
    with refused('lack a word of classes "lime", "wine"'):
        evaluate_classifier(run, *data, "--word-vectors", lacking)
    others = tmp_path / "others.txt"
    others.write_text("dark_blue 1 0\nlime 0 1\nwine 1 1\n")
    with refused("lack every class of the network", '"blue"'):
        evaluate_classifier(run, *data, "--word-vectors", others)


def test_what_does_not_apply_is_one_line(
    run: Path, unseen: Path, vectors: Path, evaluate_classifier: Script, tmp_path: Path
) -> None:
    data = ("--data", f"folder:{unseen}")
    zero_shot = ("--word-vectors", vectors)
    with refused("--word-vectors is for images of classes that the network never saw", "--data"):
        evaluate_classifier(run, *zero_shot)
    with refused("--labels names classes of the network"):
        evaluate_classifier(run, *data, *zero_shot, "--labels", "x.csv")
    with refused("--plots shows probabilities"):
        evaluate_classifier(run, *data, *zero_shot, "--plots", tmp_path / "plots")
    with refused("--conse-top 3 is for --word-vectors"):
        evaluate_classifier(run, *data, "--conse-top", 3)
    with refused("--conse-top 0 must be at least 1"):
        evaluate_classifier(run, *data, *zero_shot, "--conse-top", 0)
    with refused("none.txt", "does not exist"):
        evaluate_classifier(run, *data, "--word-vectors", tmp_path / "none.txt")
    for name in ("Red", "wine"):
        (tmp_path / "known" / name).mkdir(parents=True)
        for seed in range(2):
            draw(tmp_path / "known" / name / f"{seed}.png", (1, 2, 3), seed, (32, 32))
    with refused('the network was trained on class "Red"', "never saw"):
        evaluate_classifier(run, "--data", f"folder:{tmp_path / 'known'}", *zero_shot)


def test_without_gensim_the_extra_is_named(
    run: Path,
    unseen: Path,
    vectors: Path,
    evaluate_classifier: Script,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gensim.models", None)
    with refused('needs Gensim, which is not installed: pip install "rlcnn[text]"'):
        evaluate_classifier(run, "--data", f"folder:{unseen}", "--word-vectors", vectors)
