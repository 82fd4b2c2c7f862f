"""The pictures of ``visualize_encoder.py``: from options to the sheets of a gallery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from envs.errors import UserError
from rlcnn.data.images import LabelledImages
from rlcnn.encoders.backbones import split_name
from rlcnn.report.style import percent, styled
from rlcnn.runs.progress import ProgressDisplay, waiting
from rlcnn.supervised.evaluation.assessment import assess
from rlcnn.supervised.evaluation.networks import load_network
from rlcnn.supervised.evaluation.probe import encode
from rlcnn.visualize.activations import (
    draw_maps,
    draw_patches,
    strongest_channels,
    strongest_patches,
)
from rlcnn.visualize.charts import (
    NAMED,
    Accuracy,
    draw_accuracies,
    draw_errors_over_epochs,
    draw_times,
    published_accuracies,
    read_result,
    read_times,
    read_training,
)
from rlcnn.visualize.embedding import draw_embedding, embed
from rlcnn.visualize.errors import error_sheets
from rlcnn.visualize.filters import draw_filters, first_filters
from rlcnn.visualize.gallery.explanations import draw_saliency, draw_strip
from rlcnn.visualize.gallery.options import Picture
from rlcnn.visualize.gallery.source import Source
from rlcnn.visualize.neighbours import chance, describe_share, draw_neighbours, find_neighbours
from rlcnn.visualize.nodes import OUTPUT, as_prepared, find_layer, layer_outputs, prepared
from rlcnn.visualize.sheets import Sheet, draw_image, new_sheet
from rlcnn.visualize.style import draw_transfer, transfer_style

Draw = Callable[[Source, Console], list[Sheet]]


def make_sheets(source: Source, console: Console) -> list[Sheet]:
    """The sheets of a valid configuration's pictures.

    Raises:
        UserError: for weights, images or options that do not fit each other or do not exist.
    """
    with styled():
        return [
            sheet for picture in source.config.pictures for sheet in DRAW[picture](source, console)
        ]


def draw_first_filters(source: Source, console: Console) -> list[Sheet]:
    """The first filters beside those of the untrained network."""
    networks = {"trained": source.encoder, "untrained": source.untrained()}
    if source.config.weights == "none":
        del networks["trained"]
    filters = {name: first_filters(one, source.frame_channels) for name, one in networks.items()}
    colour = "Grey stands for 0. " if next(iter(filters.values())).shape[2] == 3 else ""
    caption = (
        f"Each filter is divided by its largest absolute weight. {colour}Learned filters are"
        " smooth; noise remains where too little was learned (Krizhevsky et al. 2012, figure 3)."
    )
    title = f"First filters of {split_name(source.encoder.name)[0]}"
    return [Sheet("filters", title, draw_filters(filters), caption)]


def draw_activations(source: Source, console: Console) -> list[Sheet]:
    """The strongest maps of an image, and the patches that excite their channels most."""
    encoder, config = source.encoder, source.config
    layer = find_layer(encoder, config.layer or OUTPUT)
    name = encoder.name if layer.name == OUTPUT else f"{encoder.name}, layer {layer.name}"
    field = "the whole image" if layer.field is None else str(layer.field)
    console.print(f"receptive field of {name}: {field}")
    image, image_name = source.picture(config.image, config.seed, "--image")

    @torch.inference_mode()
    def maps(images: torch.Tensor) -> torch.Tensor:
        # The encoder stays in fp32: maps are looked at, not timed.
        return layer_outputs(encoder, [layer], prepared(encoder, images))[layer.name]

    own = maps(image[None])[0]
    channels = strongest_channels(own, config.maps)
    rows, columns = layer.shape[1:]
    sheets = [
        Sheet(
            "maps",
            f"Feature maps of {name}, {image_name}",
            draw_maps(as_prepared(encoder, image[None])[0], own, channels),
            f"The {len(channels)} of {len(own)} channels with the largest mean, {rows}x{columns}"
            " values each, on one scale.",
        )
    ]
    images = source.images("test")
    chosen = channels[: config.channels_of_patches]
    with ProgressDisplay(console) as display:
        task = display.add("searching patches", len(images))

        def batches() -> Any:
            for part in torch.arange(len(images)).split(config.batch_size):
                yield images.gather(part)
                task.advance(len(part))

        patches = strongest_patches(
            maps, batches(), chosen, layer.field, lambda one: as_prepared(encoder, one)
        )
    sheets.append(
        Sheet(
            "patches",
            f"What excites {name}",
            draw_patches(patches, chosen),
            f"For each channel the {len(patches[0])} of {len(images):,} images with the largest"
            f" activation, cropped to the receptive field: {field}. Beside the channel: the largest"
            " and the least of these activations (Zeiler & Fergus 2013, figure 2).",
        )
    )
    return sheets


def draw_nearest(source: Source, console: Console) -> list[Sheet]:
    """Queries with their nearest training images, and the share of equal classes."""
    config = source.config
    if config.labels is not None:
        raise UserError("neighbours need training images: --labels names one set of images alone")
    train, test = (source.images(part, source.task) for part in ("train", "test"))
    places = source.query_places(test)
    features, searched = (_features(source, images, console) for images in (test, train))
    found = find_neighbours(features, searched, config.neighbours)
    own, others = (images.labels[:, 0].numpy() for images in (test, train))
    share = describe_share(found.share(own, others), chance(own, others), len(test))
    console.print(share)
    classes = source.task.classes
    figure = draw_neighbours(
        type(found)(found.indices[places], found.distances[places]),
        lambda row: _shown(source, test[places[row]]),
        lambda index: _shown(source, train[index]),
        [f"query: {test.name(place)}\n{classes[own[place]]}" for place in places],
        lambda index: f"{classes[others[index]]}",
        others[found.indices[places]] == own[places][:, None],
    )
    caption = (
        f"Left: held-out images with their class. Beside each: the nearest of {len(train):,}"
        f" training images by Euclidean distance of {features.shape[1]:,} features. {share}"
    )
    title = f"Nearest neighbours by features of {source.encoder.name}{_by_task(source)}"
    return [Sheet("neighbours", title, figure, caption)]


def draw_features(source: Source, console: Console) -> list[Sheet]:
    """t-SNE of the features of held-out images."""
    config = source.config
    images = source.images("test", source.task)
    features = _features(source, images, console)
    with waiting(console, "t-SNE"):
        places = embed(features, perplexity=config.perplexity, seed=config.seed)
    caption = (
        f"{len(images):,} held-out images by t-SNE of {features.shape[1]:,} features (PCA first,"
        f" perplexity {config.perplexity:g}). Which points are neighbours has a meaning; distances"
        " of groups, their sizes and the axes have none."
    )
    figure = draw_embedding(places, images.labels[:, 0].numpy(), source.task)
    title = f"Features of {source.encoder.name}{_by_task(source)}"
    return [Sheet("embedding", title, figure, caption)]


def draw_errors(source: Source, console: Console) -> list[Sheet]:
    """Confusion matrix, misclassified images and top-5 bars of the network with its head."""
    config, network = source.config, source.classifier()
    # At their own size: the network has a transform of its own.
    images = source.loaded.test
    if config.labels is None:
        network = network.prepared_for(config.data or source.data, images)
    with ProgressDisplay(console) as display:
        shown = display.add("evaluating", len(images))
        assessment = assess(
            [network],
            images,
            task=config.task,
            batch_size=config.batch_size,
            device=source.device,
            on_images=shown.advance,
        )
    console.print(f"top-1 {percent(assessment.together.figures()['top1'])}")  # type: ignore[arg-type]
    return error_sheets(
        assessment, lambda index: network.transform.centre(images[index])[0], images.name
    )


def draw_style(source: Source, console: Console) -> list[Sheet]:
    """Style transfer: the steps and the result."""
    options, encoder = source.config.style, source.encoder
    content, content_name = source.picture(options.content, 0, "--style.content")
    style, style_name = source.picture(options.style, 1, "--style.style")
    with ProgressDisplay(console) as display:
        task = display.add("style transfer", options.steps)

        def on_step(step: int, loss: float) -> None:
            task.status = f"loss {loss:.3g}"
            task.reach(step)

        result = transfer_style(
            encoder, content, style, options, seed=source.config.seed, on_step=on_step
        )
    title = f"{content_name} in the style of {style_name}"
    height, width = content.shape[1:]
    figure = new_sheet(4.4, 4.4 * height / width + 0.4)
    draw_image(figure.subplots(), list(result.pictures.values())[-1])
    weights = f"{options.content_weight:g} : {options.style_weight:g} : {options.tv_weight:g}"
    return [
        Sheet(
            "style",
            title,
            draw_transfer(result),
            f"Features of {encoder.name} (Gatys et al. 2016). Content : style : total variation ="
            f" {weights}.",
        ),
        Sheet("style-result", title, figure, f"The result, {width}x{height} pixels."),
    ]


def draw_charts(source: Source, console: Console) -> list[Sheet]:
    """Published accuracies and times, and those of the user's own results."""
    sheets = [
        Sheet(
            "accuracy",
            "Accuracy against operations, ImageNet networks",
            draw_accuracies(published_accuracies(), "ImageNet validation", NAMED),
            "torchvision's first published weights of each network (Canziani et al. 2016, figure"
            " 2); grey: its other networks.",
        )
    ]
    own: dict[str, list[Accuracy]] = {}
    for path in source.config.results:
        result = read_result(path)
        entry = result["networks"][0]
        network = load_network(entry["weights"], entry.get("encoder"))
        encoder = network.module.encoder
        parameters = sum(parameter.numel() for parameter in network.module.parameters())
        name = entry.get("encoder") or Path(entry["weights"]).name
        accuracy = Accuracy(name, 100 * result["top1"], encoder.macs() / 1e9, parameters / 1e6)  # type: ignore[operator, union-attr]
        own.setdefault(str(result["data"] or "images"), []).append(accuracy)
    for number, (data, networks) in enumerate(own.items(), start=1):
        sheets.append(
            Sheet(
                f"accuracy-own-{number}",
                f"Accuracy against operations, {data}",
                draw_accuracies(networks, data),
                "From results of evaluate_classifier.py.",
            )
        )
    times, label = read_times(source.config.benchmark) if source.config.benchmark else ({}, "")
    sheets.append(
        Sheet(
            "times",
            "Time of a forward and a backward pass",
            draw_times(times, label),
            "The table of github.com/jcjohnson/cnn-benchmarks of 2016"
            + (", and medians of benchmark.py on this machine." if times else "."),
        )
    )
    return sheets


def draw_curves(source: Source, console: Console) -> list[Sheet]:
    """Errors of trainings over their epochs."""
    curves = [read_training(path) for path in source.config.trainings]
    caption = (
        "Solid: error on the test images after each epoch. Dashed: mean error on the training"
        " images during the epoch, augmented. One training each (He et al. 2016, figures 1 and 6)."
    )
    title = "Errors of trainings, plain and residual"
    if len({curve.panel for curve in curves}) == 1:
        title = f"Errors of trainings, {curves[0].panel}"
    return [Sheet("curves", title, draw_errors_over_epochs(curves), caption)]


DRAW: dict[Picture, Draw] = {
    "filters": draw_first_filters,
    "activations": draw_activations,
    "neighbours": draw_nearest,
    "errors": draw_errors,
    "embedding": draw_features,
    "saliency": draw_saliency,
    "strip": draw_strip,
    "style": draw_style,
    "charts": draw_charts,
    "curves": draw_curves,
}


def _features(source: Source, images: LabelledImages, console: Console) -> np.ndarray:
    with ProgressDisplay(console) as display:
        task = display.add("encoding", len(images))
        features = encode(
            source.encoder,
            images,
            device=source.device,
            batch_size=source.config.batch_size,
            on_images=task.advance,
        )
    source.encoder.to("cpu")
    return features


def _by_task(source: Source) -> str:
    # Images with one label have no name for it.
    return "" if source.task.name == "class" else f", {source.task.name}"


def _shown(source: Source, image: torch.Tensor) -> torch.Tensor:
    """Of a stack in colour the newest frame; ``draw_image`` does so for grey ones."""
    return image[-source.frame_channels :]
