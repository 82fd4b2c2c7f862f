"""The lecture from the command line: parts made, kept, skipped and refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.picture_files import write_mnist, write_stripes
from support.script_runs import load_script
from torchvision.models import squeezenet1_0

from envs.errors import UserError
from rlcnn.config import cli, runs
from rlcnn.encoders import create_encoder
from rlcnn.runs.directory import RunDirectory
from rlcnn.visualize.lecture.options import PART_NAMES, LectureConfig, PartName
from rlcnn.visualize.lecture.parts import NEEDS, PARTS
from rlcnn.weights.load import save_encoder

Script = Callable[..., None]
SHORT = ("--epochs", 1, "--train-size", 24)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "lenet.safetensors"
    save_encoder(create_encoder("lenet", (1, 32, 32)), path)
    return path


def said_of(part: str, output: str) -> str:
    """What became of a part, by its last line."""
    return re.findall(rf"^{part}: (.*)$", output.replace("\n  ", " "), re.MULTILINE)[-1]


def test_a_lecture_has_figures_tables_and_their_commands(
    weights: Path, make_lecture: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lecture"
    arguments = ("--out", out, "--encoder", "lenet", "--weights", weights)
    make_lecture(*arguments, "--only", "counting", "filters", "depth")
    said = capsys.readouterr()
    assert said.out == f"wrote {out / 'index.html'}\n"
    assert said_of("filters", said.err).startswith("made in")
    assert said_of("depth", said.err) == f"skipped: give {NEEDS['cifar10']}"
    assert {path.name for path in out.iterdir()} == {"index.html", "counting", "filters"}
    written = {path.name for path in (out / "filters").iterdir()}
    assert written == {"filters.png", "filters.svg", "part.json"}
    page = (out / "index.html").read_text()
    # 6 filters of 5x5 and a bias each.
    assert re.search(r"c1 .* 6x28x28 .* 156 ", page)
    for command in (
        "describe_encoder.py --encoder lenet --shape 1 32 32 --classes 10",
        f"visualize_encoder.py filters --encoder lenet --weights {weights} --out {out}/filters",
    ):
        assert f"python scripts/{command}" in page
    # Self-contained.
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)

    # The second call makes nothing anew but what is damaged.
    (out / "counting" / "part.json").write_text("{")
    make_lecture(*arguments, "--only", "counting", "filters")
    said = capsys.readouterr()
    assert said_of("counting", said.err).startswith("made in")
    assert said_of("filters", said.err) == "kept"
    make_lecture("--out", out, "--only", "counting", "filters", "--force")
    said = capsys.readouterr()
    assert said_of("counting", said.err).startswith("made in")
    # A part whose data are not given any more stays.
    assert said_of("filters", said.err) == "kept"
    assert "What first filters learn" in (out / "index.html").read_text()


def test_a_part_that_fails_leaves_nothing_and_the_others_are_made(
    make_lecture: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pth").write_text("no weights")
    out = tmp_path / "lecture"
    with pytest.raises(UserError, match=r"index.html lacks parts: filters: .*bad\.pth") as error:
        make_lecture(
            *("--out", out, "--only", "counting", "filters", "--weights", tmp_path / "bad.pth")
        )
    assert "\n" not in str(error.value)
    assert {path.name for path in out.iterdir()} == {"index.html", "counting"}
    assert said_of("filters", capsys.readouterr().err).startswith("failed:")


def test_the_list_says_what_each_part_needs_and_makes_nothing(
    make_lecture: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lecture"
    make_lecture("--list", "--out", out, "--cifar10", tmp_path)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert tuple(lines) == PART_NAMES == tuple(PARTS)
    assert lines["counting"].endswith("min  can be made")
    assert lines["depth"] == "60 min  can be made"
    assert lines["maps"].endswith(f"needs {NEEDS['weights']}; {NEEDS['data']}")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--only filters depht", '--only "depht" is unknown: expected one of counting'),
        ("--only filters filters", "--only filters filters: give each once"),
        ("--mnist nowhere", '--mnist "nowhere" does not exist'),
        ("--cifar10 {file}", "is a file, not a directory"),
        ("--data photos", '--data "photos": expected photographs as folder:DIR'),
        ("--data folder:photos", '--data "photos" does not exist'),
        ("--labels labels.csv", "--labels is for photographs: give --data folder:DIR"),
        ("--weights nothing.pth", '--weights "nothing.pth" does not exist'),
        ("--encoder resnet18:layer2", "expected a network without a node"),
        ("--agent nowhere", "run directory nowhere does not exist"),
        ("--agent {folder}", "holds no config.json, so it is not a run"),
        ("--agent {classifier}", "is no run of train_agent.py"),
        ("--epochs 0", "--epochs 0 must be at least 1"),
        ("--only depth", "no part was made. depth: skipped: give --cifar10 DIR"),
        ("--out {file}", "is a file, not a directory"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: str, said: str, make_lecture: Script, tmp_path: Path
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    (folder / "file").touch()
    classifier = tmp_path / "classifier"
    RunDirectory.create(classifier, {"pretraining": {}}).close()
    words = arguments.format(file=file, folder=folder, classifier=classifier).split()
    with pytest.raises(UserError) as refused:
        make_lecture("--out", tmp_path / "lecture", *words)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "lecture").exists()


@pytest.mark.parametrize("name", PART_NAMES)
def test_the_commands_of_every_part_are_read_by_their_scripts(
    name: PartName, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    RunDirectory.create(tmp_path / "agent", {"config": {}}).close()
    config = LectureConfig(
        mnist=tmp_path,
        cifar10=tmp_path,
        data=f"folder:{tmp_path}",
        labels=tmp_path / "labels.csv",
        weights="imagenet",
        agent=tmp_path / "agent",
        device="cpu",
        out=tmp_path / "lecture",
    )
    monkeypatch.chdir(tmp_path)
    steps = PARTS[name].steps(config)
    assert not PARTS[name].missing(config)
    for step in steps:
        main = load_script(step.script).main
        read = cli.parse_options

        def stop_when_read(*arguments: Any, **named: Any) -> Any:
            raise _LineRead(read(*arguments, **named))  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setitem(main.__globals__, "parse_options", stop_when_read)
            patch.setattr(runs, "parse_options", stop_when_read)
            with pytest.raises(_LineRead) as line:
                main(list(step.arguments))
        options = line.value.args[0]
        if hasattr(options, "validate"):
            options.validate()


class _LineRead(Exception):  # noqa: N818
    """Raised with the options of a script that has read its command line."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_parts_with_trainings_and_agents_are_made_from_their_data(
    finished: tuple[Path, str],
    make_lecture: Script,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "squeezenet.safetensors"
    save_file(squeezenet1_0().state_dict(), weights)
    mnist = tmp_path / "mnist"
    write_mnist(mnist, train=60, test=30)
    cifar10 = write_stripes(tmp_path / "cifar10", train=30, test=20)
    out = tmp_path / "lecture"
    # Tests of visualize_encoder.py make the pictures of photographs, which take minutes.
    made = ("lenet", "depth", "neighbours", "transfer", "style", "agent")
    make_lecture(
        *("--out", out, "--mnist", mnist, "--cifar10", cifar10, "--weights", weights, *SHORT),
        *("--agent", finished[0], "--only", *made),
    )
    records = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/part.json")}
    assert set(records) == set(made)
    figures = {
        name: {item["figure"] for item in record["items"]} - {""}
        for name, record in records.items()
    }
    assert figures["lenet"] - {"worst"} == {"filters", "confusion", "top5", "curves"}
    assert figures["depth"] == {"curves"}
    assert figures["agent"] == {"filters", "strip", "neighbours"}
    table = records["transfer"]["items"][-1]["text"]
    assert f"{out}/runs/finetuned" in table
    # Figures of one part have different files.
    for record in records.values():
        names = [item["figure"] for item in record["items"] if item["figure"]]
        assert len(names) == len(set(names))
    # Finished trainings serve again.
    summary = out / "runs" / "cifar-56-none" / "summary.json"
    (out / "depth" / "curves.svg").unlink()
    before = summary.stat().st_mtime_ns
    depth = ("--out", out, "--cifar10", cifar10, "--only", "depth")
    make_lecture(*depth, *SHORT)
    assert (out / "depth" / "curves.svg").exists()
    assert summary.stat().st_mtime_ns == before
    # A training of another length is not taken for the one that is asked for.
    with pytest.raises(UserError, match=r"lacks parts: depth: .* has epochs 1, not 2: give"):
        make_lecture(*depth, "--epochs", 2, *SHORT[2:])
