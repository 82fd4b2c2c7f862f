"""Charts from torchvision's metadata, jcjohnson's table and results of this project's scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envs.errors import UserError
from rlcnn.report.style import styled
from rlcnn.runs.directory import RunDirectory
from rlcnn.visualize.charts import (
    JCJOHNSON_MS,
    NAMED,
    draw_accuracies,
    draw_errors_over_epochs,
    draw_times,
    published_accuracies,
    read_result,
    read_times,
    read_training,
)


def test_published_accuracies_are_those_of_torchvisions_first_weights() -> None:
    networks = {network.name: network for network in published_accuracies()}
    # https://docs.pytorch.org/vision/stable/models.html, IMAGENET1K_V1.
    for name, top1, gmacs, parameters in (
        ("alexnet", 56.522, 0.71, 61.100840),
        ("resnet50", 76.130, 4.09, 25.557032),
        ("vgg19", 72.376, 19.63, 143.667240),
    ):
        assert networks[name].top1 == top1
        assert networks[name].gmacs == pytest.approx(gmacs, abs=0.01)
        assert networks[name].parameters == pytest.approx(parameters, abs=1e-6)
    assert networks.keys() >= NAMED
    figure = draw_accuracies(list(networks.values()), "ImageNet", NAMED)
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == NAMED
    # The blobs' areas are proportional to the parameters.
    areas = {
        round(float(points.get_offsets()[0][1]), 3): points.get_sizes()[0]
        for points in axes.collections
        if len(points.get_offsets())
    }
    assert areas[72.376] / areas[56.522] == pytest.approx(143.667240 / 61.100840)
    assert "ImageNet" in axes.get_ylabel()


def test_the_table_is_jcjohnsons() -> None:
    assert JCJOHNSON_MS == {
        "AlexNet": 14.56,
        "GoogLeNet": 39.14,
        "VGG-16": 128.62,
        "VGG-19": 147.32,
        "ResNet-18": 31.54,
        "ResNet-34": 51.59,
        "ResNet-50": 103.58,
        "ResNet-101": 156.44,
        "ResNet-152": 217.91,
        "ResNet-200": 296.51,
    }
    axes = draw_times({}, "").axes[0]
    assert [bar.get_width() for bar in axes.patches] == list(JCJOHNSON_MS.values())
    assert [label.get_text() for label in axes.get_yticklabels()] == list(JCJOHNSON_MS)


def encoder_row(name: str, median: float, precision: str = "fp32", side: int = 224) -> dict:
    shape = [16, 3, side, side]
    times = {"median": median}
    return {"name": name, "input_shape": shape, "precision": precision, "total_ms": times}


def test_own_times_stand_beside_the_table_by_name(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    rows = [
        encoder_row("vgg16", 4000.0),
        encoder_row("vgg16", 900.0, "bf16"),
        encoder_row("resnet50", 9.0, side=84),
        encoder_row("nature", 5.0),
    ]
    file.write_text(json.dumps({"encoders": rows}))
    times, label = read_times(file)
    assert (times, label) == ({"VGG-16": 4000.0}, "this machine, fp32")
    axes = draw_times(times, label).axes[0]
    own = axes.containers[-1].patches
    assert [bar.get_width() for bar in own] == [4000.0]
    # In the row of VGG-16, the third.
    assert own[0].get_y() == pytest.approx(2 + 0.4 - 0.2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"a": 1}', "is no result of benchmark.py --parts encoders"),
        ('{"encoders": []}', "has no network of the table"),
    ],
)
def test_other_files_than_benchmarks_are_refused(
    content: str | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "speed.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=said):
        read_times(file)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"top1": 0.5}, "is no result of evaluate_classifier.py"),
        ({"top1": 0.5, "networks": [{}, {}]}, "is of 2 networks: expected one"),
    ],
)
def test_other_files_than_one_networks_results_are_refused(
    document: dict, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match=said):
        read_result(file)


def write_training(path: Path, options: dict, test: list[float], encoder: str = "") -> Path:
    """A run with these shares of right test images, and half of them of training images."""
    config = {"encoder": encoder or "cifar_resnet", "encoder_options": options}
    with RunDirectory.create(path, {"pretraining": config}) as run:
        for epoch, top1 in enumerate(test, start=1):
            row = {"epoch": epoch, "train/top1": top1 / 2, "test/top1": top1}
            run.append_metrics(10 * epoch, row)
    return path


def test_errors_of_plain_networks_stand_left_and_a_depth_has_one_colour(tmp_path: Path) -> None:
    runs = [
        write_training(tmp_path / "a", {"depth": 20, "shortcut": "identity"}, [0.2, 0.6]),
        write_training(tmp_path / "b", {"depth": 56}, [0.1, 0.7]),
        write_training(tmp_path / "c", {"depth": 20, "shortcut": "none"}, [0.3, 0.5]),
        write_training(tmp_path / "d", {"depth": 56, "shortcut": "none"}, [0.1, 0.4]),
    ]
    with styled():
        figure = draw_errors_over_epochs([read_training(run) for run in runs])
    plain, residual = figure.axes
    assert plain.get_title("left") == "plain: no shortcuts"
    assert residual.get_title("left") == "residual: identity shortcuts"
    lines = [{line.get_label(): line for line in panel.get_lines()} for panel in (plain, residual)]
    labels = [
        f"{depth} layers, {part} images" for depth in (20, 56) for part in ("test", "training")
    ]
    assert [list(panel) for panel in lines] == [labels, labels]
    assert lines[0]["56 layers, test images"].get_ydata() == pytest.approx([90, 60])
    assert lines[1]["20 layers, training images"].get_ydata() == pytest.approx([90, 70])
    colours = {(label, panel[label].get_color()) for panel in lines for label in labels}
    assert len(colours) == len(labels)
    assert len({colour for _, colour in colours}) == 2
    # Without colours, lines tell the images apart, and markers the depths.
    assert lines[0][labels[0]].get_linestyle() != lines[0][labels[1]].get_linestyle()
    assert lines[0][labels[0]].get_marker() != lines[0][labels[2]].get_marker()
    assert "%" in plain.get_ylabel()


def test_other_networks_have_the_names_of_their_runs(tmp_path: Path) -> None:
    curve = read_training(write_training(tmp_path / "short", {}, [0.9], "lenet"))
    assert (curve.panel, curve.name) == ("lenet", "short")


def test_runs_without_errors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='has no "train/top1" yet'):
        read_training(write_training(tmp_path / "new", {}, []))
    RunDirectory.create(tmp_path / "agent", {"config": {}}).close()
    with pytest.raises(UserError, match=r"is no run of pretrain_encoder\.py"):
        read_training(tmp_path / "agent")
