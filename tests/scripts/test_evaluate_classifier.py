"""Evaluating classifiers from the command line, and user errors."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.colour_networks import COLOURS, colour_classifier, draw
from support.script_runs import read
from torchvision import models

from envs.errors import UserError
from rlcnn.data.images import Task
from rlcnn.encoders import create_encoder
from rlcnn.runs.files import write_json_atomic
from rlcnn.supervised.classifier import Classifier, save_classifier

Script = Callable[..., None]

NAME = "squeezenet1_1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured images, five of each class in test/ and train/."""
    root = tmp_path_factory.mktemp("colours")
    for part in ("train", "test"):
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for seed in range(5):
                draw(root / part / name / f"{seed}.png", colour, seed, (32, 32))
    return root


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return colour_classifier(tmp_path / "run", f"folder:{folder}")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / f"{NAME}.pth"
    torch.manual_seed(1)
    torch.save(models.get_model(NAME).state_dict(), path)
    return path


def test_a_run_is_evaluated_on_its_own_held_out_images(
    run: Path, evaluate_classifier: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_classifier(run, "--json", tmp_path / "result.json", "--plots", tmp_path / "plots")
    result = read(tmp_path / "result.json")
    assert result["images"] == 15
    assert result["top1"] == 1.0
    assert result["part"] == "test"
    assert result["confusion"]["classes"] == ["blue", "green", "red"]
    assert result["confusion"]["counts"] == [[5, 0, 0], [0, 5, 0], [0, 0, 5]]
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {"confusion.png", "top5.png"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "images: 15 (the middle of each)"
    assert lines[1].startswith("top-1 100.00% (95% interval 79.61 to 100.00)")


def test_a_part_and_ten_crops_can_be_chosen(
    run: Path, folder: Path, evaluate_classifier: Script, tmp_path: Path
) -> None:
    data = ("--data", f"folder:{folder}")
    for part, count in (("train", 15), ("all", 30)):
        evaluate_classifier(
            *(run, *data, "--part", part, "--crops", 10, "--json", tmp_path / "result.json")
        )
        result = read(tmp_path / "result.json")
        assert (result["images"], result["crops"], result["top1"]) == (count, 10, 1.0)


def test_several_form_an_ensemble_and_each_is_reported(
    run: Path,
    folder: Path,
    evaluate_classifier: Script,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = colour_classifier(tmp_path / "wrong", f"folder:{folder}", wrong=True)
    evaluate_classifier(run, wrong, run, "--json", tmp_path / "result.json")
    result = read(tmp_path / "result.json")
    assert [member["top1"] for member in result["members"]] == [1.0, 0.0, 1.0]
    # Two of three are right, and as sure as the third.
    assert result["top1"] == 1.0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"{wrong}: top-1 0.00%")
    assert lines[-1].startswith("together: top-1 100.00%")


def test_a_published_network_takes_labels_from_a_csv(
    published: Path, folder: Path, evaluate_classifier: Script, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text(
        "file,class_index\n" + "".join(f"test/red/{n}.png,{n}\n" for n in range(5))
    )
    evaluate_classifier(
        *(published, "--encoder", NAME, "--data", f"folder:{folder}", "--size", 64),
        *("--labels", tmp_path / "labels.csv", "--json", tmp_path / "result.json"),
        *("--plots", tmp_path / "plots"),
    )
    result = read(tmp_path / "result.json")
    assert result["images"] == 5
    assert result["networks"][0]["resize"] == 256
    assert result["networks"][0]["height"] == 64
    assert {"top1", "top5", "top5_interval"} <= result.keys()
    assert (tmp_path / "plots" / "worst.png").is_file()


@pytest.mark.slow
def test_real_weights_classify_real_photographs(
    real_data: Path, evaluate_classifier: Script, tmp_path: Path
) -> None:
    weights = real_data / "squeezenet1_0-imagenet.safetensors"
    if not weights.is_file():
        pytest.skip("there are no weights of squeezenet1_0 in RLCNN_DATA")
    for crops in (1, 10):
        evaluate_classifier(
            *(weights, "--encoder", "squeezenet1_0", "--crops", crops),
            *("--data", f"folder:{real_data / 'imagenet-samples'}", "--labels", "labels.csv"),
            *("--json", tmp_path / "result.json"),
        )
        result = read(tmp_path / "result.json")
        assert result["images"] == 40
        # 83.7% of many more.
        assert result["top5"] >= 0.75


# What a user can get wrong.


def refused(script: Script, *arguments: object) -> str:
    with pytest.raises(UserError) as error:
        script(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "options, said",
    [
        ("", "WEIGHTS_OR_RUN is missing"),
        ("{run} --crops 5", "--crops"),
        ("''", 'WEIGHTS_OR_RUN takes a value: "" is empty'),
        ("{run} ''", 'WEIGHTS_OR_RUN takes a value: "" is empty'),
        ("{run} --size 99999999", "--size 99999999 must be at least 1 and at most 4096"),
        ("{run} --data folder:", "expected folder:DIR"),
        ("{run} --data atari:Pong", "expected a run that was trained on atari: data"),
        ("{run} --size 0", "--size 0 must be at least 1"),
        ("{run} --size 64", "--size 64 does not apply"),
        ("{run} --seed -1", "--seed -1 must be at least 0"),
        ("{run} --batch-size 0", "--batch-size 0 must be at least 1"),
        ("{run} --resize 20", "hold no crop of 32"),
        ("{run} --data flder:x", 'Did you mean "folder:'),
        ("{run} --data folder:{folder}/none", 'none" does not exist'),
        ("{run} --encoder nature", 'a classifier of encoder "cifar_resnet", not of "nature"'),
        ("{run} --labels l.csv", "--labels is for the images of a folder"),
        ("{run} --data folder:{folder} --labels none.csv", 'cannot read "none.csv"'),
        ("{run} --data folder:{folder} --labels l.csv --part all", "--part does not apply"),
        ("{run} --json {folder}", "is a directory, not a file"),
        ("{run} --json {folder}/no/file.json", "no such directory; mkdir -p"),
        ("{run} --device gpu", 'unknown device "gpu"'),
        ("{run} --crop 1", 'Did you mean "--crops"'),
        ("{run} --task lives", '"lives"'),
        ("{folder}", "but not a run: it has no config.json"),
        ("{published} --data folder:{folder}", "give --encoder NAME"),
        ("{published} --encoder squeezenet1_1", "does not name its training data"),
        ("{published} --encoder squeezenet1_1 --data folder:{folder}", 'knows no class "blue"'),
        ("{published} --encoder squeezenet1_0 --data folder:{folder}", "It fits encoder"),
        ("{published} {run} --encoder squeezenet1_1 --data folder:{folder}", "squeezenet1_1"),
    ],
)
def test_bad_options_are_one_line(
    options: str, said: str, run: Path, folder: Path, published: Path, evaluate_classifier: Script
) -> None:
    filled = shlex.split(options.format(run=run, folder=folder, published=published))
    assert said in refused(evaluate_classifier, *filled)


def test_labels_of_a_network_with_several_tasks_need_one(
    folder: Path, evaluate_classifier: Script, tmp_path: Path
) -> None:
    classifier = Classifier(
        create_encoder("lenet", (3, 32, 32)),
        [Task("colour", ("blue", "green", "red")), Task("light", ("no", "yes"))],
    )
    save_classifier(classifier, tmp_path / "two.safetensors", {})
    (tmp_path / "labels.csv").write_text("file,class_index\ntest/red/0.png,2\n")
    arguments = [tmp_path / "two.safetensors", "--data", f"folder:{folder}"]
    arguments += ["--labels", tmp_path / "labels.csv"]
    message = refused(evaluate_classifier, *arguments)
    assert message == "the network has several tasks: give --task colour or light"
    evaluate_classifier(*arguments, "--task", "colour")


def test_bad_images_are_one_line_that_names_the_file(
    run: Path, evaluate_classifier: Script, tmp_path: Path
) -> None:
    image, rest = tmp_path / "images" / "red" / "0.png", tmp_path / "images" / "blue"
    for directory in (image.parent, rest):
        directory.mkdir(parents=True)
        for seed in range(5):
            draw(directory / f"{seed}.png", COLOURS[directory.name], seed, (32, 32))
    whole = image.read_bytes()

    def refusal() -> str:
        return refused(evaluate_classifier, run, "--data", f"folder:{image.parents[1]}")

    for damaged in (whole[: len(whole) // 2], b"no image at all", b""):
        image.write_bytes(damaged)
        assert str(image) in refusal()
    image.write_bytes(whole)
    for file in rest.iterdir():
        file.unlink()
    assert 'class "blue" is empty' in refusal()
    rest.rmdir()
    assert "only one class" in refusal()


def test_grey_images_before_a_network_for_colours_are_one_line(
    run: Path, evaluate_classifier: Script, tmp_path: Path
) -> None:
    for name in COLOURS:
        (tmp_path / "images" / name).mkdir(parents=True)
        for seed in range(2):
            Image.new("L", (32, 32), 100 + seed).save(tmp_path / "images" / name / f"{seed}.png")
    data = ("--data", f"folder:{tmp_path / 'images'}")
    message = refused(evaluate_classifier, run, *data)
    assert "the images have 1 channel (grey), but" in message
    assert message.endswith("takes 3 channels (RGB): --channels 3 converts them")
    evaluate_classifier(run, *data, "--channels", 3)


def test_images_that_one_of_the_networks_learned_from_are_refused(
    evaluate_classifier: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed splits a folder without test/, so each seed holds out other images."""
    images = tmp_path / "images"
    for name, colour in COLOURS.items():
        (images / name).mkdir(parents=True)
        for number in range(5):
            draw(images / name / f"{number}.png", colour, number, (32, 32))
    runs = [colour_classifier(tmp_path / f"run{seed}", f"folder:{images}") for seed in (0, 1)]
    document = read(runs[1] / "config.json")
    document["pretraining"]["seed"] = 1
    write_json_atomic(runs[1] / "config.json", document)

    for run in runs:
        evaluate_classifier(run)
    message = refused(evaluate_classifier, *runs)
    assert message.startswith(f'"{runs[1]}" was trained on images that --seed 0 holds out of')
    monkeypatch.chdir(tmp_path)
    message = refused(evaluate_classifier, runs[0], "--seed", 1, "--data", "folder:images")
    assert message.startswith(f'"{runs[0]}" was trained on')
    # Of all of them no one says that they were not learned from.
    evaluate_classifier(*runs, "--part", "all")
    # As many of each are held out under another seed, too, but others.
    evaluate_classifier(runs[1], "--resize", 32, "--json", "result.json")
    assert read(tmp_path / "result.json")["images"] == 3
