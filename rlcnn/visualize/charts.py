"""Charts of networks: accuracy against operations, times of passes, errors over epochs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from envs.errors import UserError
from rlcnn.report.style import FAINT, INK, point_style
from rlcnn.runs.directory import RunDirectory
from rlcnn.visualize.sheets import CLASS_COLOUR, OTHER_COLOUR, new_sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

JCJOHNSON_MS = {
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
"""Milliseconds of a forward and a backward pass over 16x3x224x224 on a Pascal Titan X, 2016, from
https://github.com/jcjohnson/cnn-benchmarks; the fastest of its settings."""

IMAGES = [16, 3, 224, 224]

# Networks of torchvision in the table.
_SAME = {
    "alexnet": "AlexNet",
    "googlenet": "GoogLeNet",
    "vgg16": "VGG-16",
    "vgg19": "VGG-19",
    **{f"resnet{depth}": f"ResNet-{depth}" for depth in (18, 34, 50, 101, 152)},
}

# The published networks that courses speak of; names of all 80 would hide each other.
NAMED = frozenset(
    {
        *(
            "alexnet",
            "googlenet",
            "inception_v3",
            "vgg16",
            "vgg19",
            "resnet18",
            "resnet50",
            "resnet152",
        ),
        *("densenet121", "squeezenet1_1", "mobilenet_v2", "efficientnet_b0", "efficientnet_b7"),
        *("convnext_tiny", "vit_b_16", "shufflenet_v2_x0_5", "regnet_y_400mf"),
    }
)
# Their names stand above their blobs, since others are below.
_ABOVE = frozenset({"resnet18", "vgg19", "vit_b_16"})
_AREA = 4.0  # of a blob, square points for a million parameters


class Accuracy(NamedTuple):
    """A network in the chart: top-1 accuracy in per cent, giga-MACs and millions of parameters."""

    name: str
    top1: float
    gmacs: float
    parameters: float


def published_accuracies() -> list[Accuracy]:
    """Torchvision's networks by the metadata of their first ImageNet weights.

    What it calls GFLOPS are multiply-accumulates.
    """
    from torchvision import models

    found = []
    for name in models.list_models(module=models):
        # The first weights come from the recipes of the papers, the later ones from better recipes.
        first = next(iter(models.get_model_weights(name))).meta
        top1 = first["_metrics"]["ImageNet-1K"]["acc@1"]
        found.append(Accuracy(name, top1, first["_ops"], first["num_params"] / 1e6))
    return found


def draw_accuracies(
    networks: Sequence[Accuracy], measured: str, named: Collection[str] | None = None
) -> Figure:
    """Blobs of accuracy over operations; their area is the number of parameters.

    ``measured`` says on what the accuracy is measured; ``named`` are the networks with their names,
    by default all.
    """
    figure = new_sheet(7.4, 5.0)
    axes = figure.subplots()
    named = named if named is not None else {network.name for network in networks}
    # The largest first, so that small ones lie above.
    for network in sorted(networks, key=lambda network: -network.parameters):
        own = network.name in named
        axes.scatter(
            network.gmacs,
            network.top1,
            s=_AREA * network.parameters,
            color=CLASS_COLOUR if own else "#b0b0b0",
            alpha=0.5 if own else 0.3,
            edgecolors=INK if own else FAINT,
            linewidths=0.5,
        )
        if own:
            axes.annotate(
                network.name,
                (network.gmacs, network.top1),
                xytext=(4, 5 if network.name in _ABOVE else -9),
                textcoords="offset points",
                fontsize="x-small",
            )
    for parameters in (1, 10, 100):
        axes.scatter(
            [],
            [],
            s=_AREA * parameters,
            color="#d0d0d0",
            edgecolors=INK,
            linewidths=0.5,
            label=f"{parameters} million",
        )
    figure.legend(
        loc="outside right upper", title="parameters\n(area)", labelspacing=1.6, borderpad=0.8
    )
    axes.set(
        xscale="log",
        xlabel="operations of one image (billion multiply-accumulates, log scale)",
        ylabel=f"top-1 accuracy (%), {measured}",
    )
    # Powers of ten are formulas, which the style of figures does not draw.
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.1, y=0.14)
    return figure


def draw_times(own: Mapping[str, float], label: str) -> Figure:
    """Bars of jcjohnson's table, and beside them ``own`` milliseconds by its networks' names."""
    figure = new_sheet(7.4, 4.4 if own else 3.4)
    axes = figure.subplots()
    names = list(JCJOHNSON_MS)
    height = 0.4 if own else 0.7
    series: list[tuple[str, Mapping[str, float], str, str]]
    series = [("Pascal Titan X, 2016 (jcjohnson)", JCJOHNSON_MS, OTHER_COLOUR, "///")]
    if own:
        series.append((label, own, CLASS_COLOUR, ""))
    for number, (title, times, colour, hatch) in enumerate(series):
        places = [index + number * height for index, name in enumerate(names) if name in times]
        values = [times[name] for name in names if name in times]
        bars = axes.barh(
            places, values, height, color=colour, hatch=hatch, edgecolor="white", label=title
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize="x-small")
    axes.set_yticks([index + height / 2 * bool(own) for index in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of a forward and a backward pass, 16 images of 3x224x224")
    if own:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(f"{axes.get_xlabel()} (log scale)")
    axes.margins(x=0.12)
    figure.legend(loc="outside lower left", ncols=1)
    return figure


class ErrorCurve(NamedTuple):
    """The errors of a training, in per cent.

    ``panel`` and ``name`` say where it is drawn and what its network is; ``training`` and ``test``
    are the errors by epoch. The training error is the mean over an epoch's augmented images.
    """

    panel: str
    name: str
    training: Mapping[int, float]
    test: Mapping[int, float]


def draw_errors_over_epochs(curves: Sequence[ErrorCurve]) -> Figure:
    """Error over epochs, a panel for each kind of network: as figure 6 of He et al. 2016.

    Plain networks stand before residual ones. A name has one colour in all panels. Lines of test
    images are solid, those of training images dashed.
    """
    panels = sorted({curve.panel for curve in curves})
    names = list(dict.fromkeys(curve.name for curve in curves))
    figure = new_sheet(max(4.4, 3.7 * len(panels)), 3.9)
    shown = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, panel in zip(shown, panels, strict=True):
        for curve in curves:
            if curve.panel != panel:
                continue
            colour, marker = point_style(names.index(curve.name))
            for part, errors, line in (
                ("test", curve.test, "-"),
                ("training", curve.training, "--"),
            ):
                axes.plot(
                    list(errors),
                    list(errors.values()),
                    line,
                    color=colour,
                    marker=marker,
                    markersize=3.5,
                    markerfacecolor=colour if part == "test" else "white",
                    label=f"{curve.name}, {part} images",
                )
        axes.set(title=panel, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    shown[0].set(ylabel="top-1 error (%)", ylim=(0, None))
    lines = {text: line for axes in shown for line, text in _labelled(axes)}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=2)
    return figure


def _labelled(axes: Axes) -> Iterable[tuple[Any, str]]:
    return zip(*axes.get_legend_handles_labels(), strict=True)


def read_training(path: Path) -> ErrorCurve:
    """The errors of a run of ``pretrain_encoder.py``, finished or not.

    Raises:
        UserError: it is no such run, or has no epoch with both errors yet.
    """
    run = RunDirectory.open(path)
    if "pretraining" not in run.config:
        raise UserError(f'--trainings "{path}" is no run of pretrain_encoder.py')
    config, parts = run.config["pretraining"], []
    for name in ("train/top1", "test/top1"):
        rows = {row["epoch"]: row[name] for row in run.metrics() if row.get(name) is not None}
        if not rows:
            raise UserError(f'--trainings "{path}" has no "{name}" yet: a classifier logs it')
        parts.append({epoch: 100 * (1 - top1) for epoch, top1 in rows.items()})
    return ErrorCurve(*_panel_and_name(config, path), *parts)


def _panel_and_name(config: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """Networks of He et al. by shortcuts and depth, others by their encoder and their run."""
    encoder, options = config["encoder"], config["encoder_options"]
    if encoder != "cifar_resnet":
        return encoder, path.resolve().name
    shortcut = options.get("shortcut", "identity")
    kinds = {"none": "plain: no shortcuts", "identity": "residual: identity shortcuts"}
    return kinds.get(shortcut, f"residual: {shortcut}"), f"{options.get('depth', 20)} layers"


def read_times(path: Path) -> tuple[dict[str, float], str]:
    """The times of a result of ``benchmark.py --json`` by the table's names, and their label.

    Raises:
        UserError: the file is no such result, or has no network of the table.
    """
    document = _read(path, "--benchmark")
    try:
        rows = [row for row in document["encoders"] if list(row["input_shape"]) == IMAGES]
        precisions = list(dict.fromkeys(row["precision"] for row in rows))
        times = {
            _SAME[row["name"]]: float(row["total_ms"]["median"])
            for row in rows
            if row["name"] in _SAME and row["precision"] == precisions[0]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'--benchmark "{path}" is no result of benchmark.py --parts encoders --json: {error}'
        ) from error
    if not times:
        raise UserError(
            f'--benchmark "{path}" has no network of the table: benchmark.py --parts encoders'
            " --image-models alexnet vgg16 measures some"
        )
    return times, f"this machine, {precisions[0]}"


def read_result(path: Path) -> dict[str, Any]:
    """A result of ``evaluate_classifier.py --json``, which has weights, data and ``top1``.

    Raises:
        UserError: the file is no such result, or one of an ensemble.
    """
    document = _read(path, "--results")
    networks = document.get("networks")
    if not isinstance(networks, list) or not isinstance(document.get("top1"), int | float):
        raise UserError(f'--results "{path}" is no result of evaluate_classifier.py --json')
    if len(networks) != 1:
        raise UserError(f'--results "{path}" is of {len(networks)} networks: expected one')
    return document


def _read(path: Path, option: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f'{option} "{path}" cannot be read: {error.strerror or error}') from error
    except ValueError as error:
        raise UserError(f'{option} "{path}" is not JSON: {error}') from error
    if not isinstance(document, dict):
        raise UserError(f'{option} "{path}" is not a JSON object')
    return document
