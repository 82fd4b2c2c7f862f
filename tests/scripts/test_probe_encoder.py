"""Probing frozen features from the command line."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.picture_files import write_stripes
from support.script_runs import read
from torchvision.models import squeezenet1_1

from envs.errors import UserError
from rlcnn.data.images import Task
from rlcnn.encoders import create_encoder
from rlcnn.encoders.backbones import block_nodes
from rlcnn.supervised.classifier import Classifier, save_classifier
from rlcnn.weights.load import save_encoder

Script = Callable[..., None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stripes(tmp_path_factory.mktemp("stripes"), train=24, test=12)


def test_features_are_compared_with_random_ones(
    folder: Path, probe_encoder: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "encoder.safetensors"
    save_encoder(create_encoder("lenet", (1, 32, 32)), weights)
    probe_encoder(
        *("--encoder", "lenet", "--data", f"folder:{folder}", "--weights", weights),
        *("--random-seeds", 0, 1, "--json", tmp_path / "result.json", "--train-size", 40),
    )
    result = read(tmp_path / "result.json")
    assert (result["train"], result["test"], result["majority"]) == (40, 24, 0.5)
    assert result["features"] == 84
    for method in ("svm", "linear"):
        found = result["methods"][method]
        # A random convolution separates horizontal from vertical stripes.
        assert found["own"]["accuracy"] > 0.9
        assert [one["seed"] for one in found["random"]] == [0, 1]
        lower, upper = found["gain_interval"]
        assert lower < found["gain"] < upper
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "lenet, 84 features; 40 images to fit on, 24 to test on"
    assert lines[1] == "majority class: 50.00%"
    assert any(line.startswith("linear SVM, over random: ") for line in lines)


def test_a_backbone_takes_images_at_a_size_of_its_own(
    folder: Path, probe_encoder: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe_encoder(
        *("--encoder", "squeezenet1_1:features.4", "--data", f"folder:{folder}", "--size", 48),
        *("--channels", 3, "--methods", "linear", "--max-features", 64),
        *("--json", tmp_path / "result.json"),
    )
    result = read(tmp_path / "result.json")
    assert result["encoder"]["observation_shape"] == [3, 48, 48]
    assert result["features"] == 64
    # Without weights it is itself a random one.
    assert result["methods"]["linear"]["own"] is None
    assert "are reduced to 64 by a random projection" in capsys.readouterr().err


def test_trained_networks_stand_in_one_table_with_frozen_features(
    folder: Path,
    probe_encoder: Script,
    evaluate_classifier: Script,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = f"folder:{folder}"
    torch.manual_seed(0)
    paths = [tmp_path / f"{name}.safetensors" for name in ("scratch", "finetuned")]
    for path in paths:
        encoder = create_encoder("cifar_resnet", (1, 32, 32), depth=8)
        classifier = Classifier(encoder, [Task("class", ("across", "down"))])
        save_classifier(classifier, path, {"data": data, "seed": 0, "augment": {}})
    probe_encoder(
        *("--encoder", "cifar_resnet", "--weights", paths[1], "--data", data, "--size", 24),
        *("--methods", "svm", "--classifiers", *paths, "--json", tmp_path / "result.json"),
    )
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert table[:3] == [
        "| classifier | top-1 | 95% interval |",
        "|---|---:|---|",
        "| majority class | 50.00% | |",
    ]
    assert [row.split(" | ")[0] for row in table[3:]] == [
        "| linear SVM on frozen random encoder 0",
        f"| linear SVM on frozen {paths[1]}",
        *(f"| {path}" for path in paths),
    ]
    result = read(tmp_path / "result.json")
    for path in paths:
        # At their own size, whatever --size says.
        evaluate_classifier(path, "--data", data, "--json", tmp_path / "alone.json")
        figures = result["classifiers"][str(path)]
        assert figures["top1"] == read(tmp_path / "alone.json")["top1"]
        assert f"| {100 * figures['top1']:.2f}% |" in table[5 + paths.index(path)]


def test_the_nodes_of_a_network_are_ranked(
    folder: Path, probe_encoder: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    probe_encoder(
        *("--encoder", "squeezenet1_1", "--data", f"folder:{folder}", "--size", 32),
        *("--weights", tmp_path / "weights.pth", "--channels", 3, "--max-features", 64),
        *("--node-sweep", "--json", tmp_path / "sweep.json"),
        *("--encoder-options", "pooling", "2x2"),
    )
    result = read(tmp_path / "sweep.json")
    ranked, by_name = result["nodes"], {one["node"]: one for one in result["nodes"]}
    assert [one["accuracy"] for one in ranked] == sorted(
        (one["accuracy"] for one in ranked), reverse=True
    )
    # The deepest maps are smaller than the grid.
    assert set(by_name) | set(result["skipped"]) == set(block_nodes("squeezenet1_1"))
    assert "finer than the feature maps: 1x1" in result["skipped"]["features.12"]
    assert by_name["features.4"]["shape"] == [128, 7, 7]
    assert by_name["features.4"]["features"] == 128 * 4
    assert all(one["over_best"]["gain"] <= 0 for one in ranked)
    # A node is what a probe of this node alone finds.
    probe_encoder(
        *("--encoder", "squeezenet1_1:features.4", "--data", f"folder:{folder}", "--size", 32),
        *("--weights", tmp_path / "weights.pth", "--channels", 3, "--max-features", 64),
        *("--methods", "svm", "--json", tmp_path / "alone.json"),
        *("--encoder-options", "pooling", "2x2"),
    )
    alone = read(tmp_path / "alone.json")["methods"]["svm"]["own"]
    assert {name: by_name["features.4"][name] for name in alone} == alone
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| features.4 | 128x7x7 | 512 |") for line in lines)
    cheapest = by_name[result["cheapest"]]
    equal = [one for one in ranked if one["over_best"]["interval"][1] >= 0]
    assert cheapest["macs"] == min(one["macs"] for one in equal)
    assert any(line.endswith(f"--encoder squeezenet1_1:{result['cheapest']}") for line in lines)


@pytest.mark.parametrize(
    "options, said",
    [
        ("", "--encoder"),
        ("--encoder lenet", "--data"),
        ("--encoder lenet --data folder:{folder} --node-sweep", 'not "lenet": its layers are'),
        (
            "--encoder resnet18:layer2 --data folder:{folder} --node-sweep",
            'expected --encoder resnet18, not "resnet18:layer2"',
        ),
        ("--encoder lenet --foresee Pong --data cifar10", "leave out --data"),
        ("--encoder lenet --foresee Pong --node-sweep", "leave out --node-sweep"),
        ("--encoder lenet --foresee Pong,Breakout", "must be one game, such as Pong"),
        ("--encoder lenet --foresee Pong --reward-steps 0", "--reward-steps 0 must be"),
        ("--encoder lenet --foresee Pong --players {folder}", "is not a run"),
        ("--encoder resnet81 --data folder:{folder} --node-sweep", "resnet81"),
        ("--encoder lnet --data folder:{folder}", 'Did you mean "lenet"'),
        ("--encoder lenet --data folder:{folder}/none", "does not exist"),
        ("--encoder lenet --data folder:{folder} --weights none.pth", '"none.pth" does not exist'),
        ("--encoder lenet --data folder:{folder} --weights imagenet", "no ImageNet weights"),
        ("--encoder lenet --data folder:{folder} --methods sv", "sv"),
        ("--encoder lenet --data folder:{folder} --train-size 49", "at most 48"),
        ("--encoder lenet --data folder:{folder} --random-seeds -1", "--random-seeds -1 must be"),
        ("--encoder lenet --data folder:{folder} --random-seeds", "--random-seeds"),
        ("--encoder lenet --data folder:{folder} --size 0", "--size 0 must be at least 1"),
        ("--encoder lenet --data folder:{folder} --json {folder}", "is a directory, not a file"),
        ("--encoder lenet --data folder:{folder} --size 99999999", "at most 4096"),
        ("--encoder nature --data atari:Pong --frames.obs-size 5", "Give --frames.obs-size 36."),
        ("--encoder lenet --data atari:Pong --players ''", '--players takes a value: "" is empty'),
        ("--encoder zfnet --data folder:{folder}", "at least 47x47. Give --size 47."),
        ("--encoder lenet --data folder:{folder} --players x", "--players is for atari: data"),
        ("--encoder lenet --data atari:Pong --players {folder}", "run"),
        ("--encoder lenet --data folder:{folder} --encoder-options widht 2", "widht"),
        ("--encoder lenet --data folder:{folder} --classifiers x.pth", '"x.pth" does not exist'),
        ("--encoder lenet --data folder:{folder} --classifiers {folder}", "but not a run"),
    ],
)
def test_bad_options_are_one_line(
    options: str, said: str, folder: Path, probe_encoder: Script
) -> None:
    with pytest.raises(UserError) as error:
        probe_encoder(*shlex.split(options.format(folder=folder)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_images_of_different_sizes_need_a_size(
    folder: Path, probe_encoder: Script, tmp_path: Path
) -> None:
    for name in ("across", "down"):
        (tmp_path / name).mkdir()
        for side in range(20, 30):
            Image.new("L", (side, 20), side).save(tmp_path / name / f"{side}.png")
    with pytest.raises(UserError, match="differ in size: --size N"):
        probe_encoder("--encoder", "lenet", "--data", f"folder:{tmp_path}")
    probe_encoder(
        *("--encoder", "lenet", "--data", f"folder:{tmp_path}", "--size", 28, "--methods", "linear")
    )


def test_images_that_the_weights_learned_from_are_refused(
    folder: Path, probe_encoder: Script, tmp_path: Path
) -> None:
    weights = tmp_path / "encoder.safetensors"
    images = folder / "train"
    about = {"data": f"folder:{images}", "seed": 3}
    save_encoder(create_encoder("lenet", (1, 32, 32)), weights, about)
    options = ["--encoder", "lenet", "--data", f"folder:{images}", "--weights", weights]
    with pytest.raises(UserError, match="was trained on images that --seed 0 holds out") as error:
        probe_encoder(*options)
    assert "seed is 3" in str(error.value)
    probe_encoder(*options, "--seed", 3, "--methods", "linear")
