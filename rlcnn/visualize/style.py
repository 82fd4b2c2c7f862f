"""Style transfer: the content of one picture in the style of another (Gatys et al. 2016).

"Image style transfer using convolutional neural networks", equations 1 to 7. Two constants differ
so that the weights of the losses mean the same for any network: the content loss is divided by the
mean square of the content's features, and the style loss by that of the content picture.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from envs.errors import UserError
from rlcnn.encoders import Encoder
from rlcnn.visualize.gallery.options import StyleOptions
from rlcnn.visualize.nodes import Layer, find_layer, layer_outputs, list_layers
from rlcnn.visualize.sheets import draw_image, new_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PICTURES, _MOST_COLUMNS = 28, 5
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Transfer:
    """The pictures of a style transfer and its losses.

    Attributes:
        content: uint8 (channels, height, width).
        style: likewise.
        pictures: pictures by the step after which they were made, the last the result.
        losses: "content", "style", "total variation" and "total" before every step, weighted.
    """

    content: torch.Tensor
    style: torch.Tensor
    pictures: dict[int, torch.Tensor] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)


def gram_matrix(maps: torch.Tensor) -> torch.Tensor:
    """Equation 3 for each position: mean products of channels, (batch, channels, channels).

    ``maps`` are (batch, channels, rows, columns). The paper takes the sum over positions and
    divides later; with means, pictures may differ in size.
    """
    vectors = maps.flatten(2)
    return vectors @ vectors.transpose(1, 2) / vectors.shape[2]


def style_loss(maps: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Equation 4: squared distance of the :func:`gram_matrix` of maps to that of a style."""
    return (gram_matrix(maps) - gram).square().sum() / (4 * maps.shape[1] ** 2)


def total_variation(image: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of neighbouring pixels of (batch, channels, height, width)."""
    down = (image[:, :, 1:] - image[:, :, :-1]).square().mean()
    right = (image[:, :, :, 1:] - image[:, :, :, :-1]).square().mean()
    return down + right


def default_layers(layers: Sequence[Layer]) -> tuple[list[str], list[str]]:
    """Layers for the content and for the style, by the paper's rule for VGG-19.

    Style: the first convolution at each size of maps (conv1_1 to conv5_1). Content: the second at
    the last size but one (conv4_2).
    """
    sizes: dict[tuple[int, ...], list[str]] = {}
    for layer in layers:
        if isinstance(layer.module, nn.Conv2d) and layer.has_maps:
            sizes.setdefault(layer.shape[1:], []).append(layer.name)
    groups = list(sizes.values())
    if not groups:
        return [], []
    content = groups[-2] if len(groups) > 1 else groups[-1]
    return [content[min(1, len(content) - 1)]], [group[0] for group in groups]


def transfer_style(
    encoder: Encoder,
    content: torch.Tensor,
    style: torch.Tensor,
    options: StyleOptions,
    *,
    seed: int = 0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Transfer:
    """Draws the content in the style, starting at the content, the style or noise.

    Args:
        encoder: with learned weights; it does not change.
        content: uint8 (channels, height, width), an observation of the encoder.
        style: likewise.
        options: layers, weights and the optimiser.
        seed: of the noise.
        on_step: called after each step with its number and the total loss.

    Raises:
        UserError: a layer is unknown or has no maps, or the loss is no longer finite.
    """
    losses = _Losses(encoder, content, style, options)
    start = {
        "content": content.float(),
        "style": style.float(),
        "noise": 255 * torch.rand(content.shape, generator=torch.Generator().manual_seed(seed)),
    }[options.start]
    picture = start[None].clone().requires_grad_()
    optimizer: torch.optim.Optimizer
    if options.optimizer == "lbfgs":
        # The line search keeps the loss from rising; gradients by grey levels are small.
        search: Any = {"line_search_fn": "strong_wolfe", "tolerance_grad": 0, "tolerance_change": 0}
        optimizer = torch.optim.LBFGS([picture], max_iter=1, history_size=20, **search)
    else:
        optimizer = torch.optim.Adam([picture], lr=options.learning_rate)
    result = Transfer(content, style, losses={name: [] for name in (*_TERMS, "total")})
    terms: dict[str, float] = {}

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        found = losses(picture)
        total = torch.stack(list(found.values())).sum()
        total.backward()
        # Of a step's evaluations the first is that of the picture before it.
        for name, value in {**found, "total": total}.items():
            terms.setdefault(name, value.item())
        return total

    for step in range(1, options.steps + 1):
        terms.clear()
        optimizer.step(closure)
        if not all(map(torch.isfinite, map(torch.tensor, terms.values()))):
            raise UserError(
                f"the loss is no longer finite at step {step}: give a smaller"
                " --style.learning-rate or --style.optimizer lbfgs"
            )
        if result.losses["total"][-1:] == [terms["total"]]:
            # A search that found no lower loss begins anew along the gradient.
            optimizer.state.clear()
        for name, values in result.losses.items():
            values.append(terms[name])
        if step % options.every == 0 or step == options.steps:
            result.pictures[step] = picture.detach()[0].round().clamp(0, 255).to(torch.uint8)
        on_step(step, terms["total"])
    return result


_TERMS = ("content", "style", "total variation")


class _Losses:
    """The weighted losses of a picture, float32 (1, channels, height, width) of 0 to 255."""

    def __init__(
        self, encoder: Encoder, content: torch.Tensor, style: torch.Tensor, options: StyleOptions
    ) -> None:
        # A copy that takes floats, without gradients of its parameters.
        self._encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        self._encoder.preprocessing.takes_floats = True
        known = list_layers(self._encoder)
        defaults = default_layers(list(known.values()))
        names = [
            given or default
            for given, default in zip(
                (options.content_layers, options.style_layers), defaults, strict=True
            )
        ]
        self.content_layers, self.style_layers = (
            [find_layer(self._encoder, name, known) for name in each] for each in names
        )
        if not self.content_layers or not self.style_layers:
            raise UserError(f'encoder "{encoder.name}" has no convolution with maps')
        self._options = options
        with torch.no_grad():
            contents, styles = (self._outputs(image[None].float()) for image in (content, style))
            self._contents = {layer.name: contents[layer.name] for layer in self.content_layers}
            self._grams = {
                layer.name: gram_matrix(styles[layer.name]) for layer in self.style_layers
            }
            self._powers = {n: m.square().mean() + _TINY for n, m in self._contents.items()}
            # Not less than a millionth of the style, for a content of the same style.
            self._distances = {
                name: style_loss(contents[name], gram)
                + 1e-6 * gram.square().sum() / (4 * len(gram[0]) ** 2)
                + _TINY
                for name, gram in self._grams.items()
            }

    def _outputs(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        images = self._encoder.preprocessing(picture)
        return layer_outputs(self._encoder, [*self.content_layers, *self.style_layers], images)

    def __call__(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs, options = self._outputs(picture), self._options
        content = [
            F.mse_loss(outputs[name], target) / self._powers[name]
            for name, target in self._contents.items()
        ]
        style = [
            style_loss(outputs[name], gram) / self._distances[name]
            for name, gram in self._grams.items()
        ]
        values = (
            options.content_weight * torch.stack(content).mean(),
            options.style_weight * torch.stack(style).mean(),
            options.tv_weight * total_variation(picture / 255),
        )
        return dict(zip(_TERMS, values, strict=True))


def draw_transfer(transfer: Transfer) -> Figure:
    """The content, the style, pictures on the way, the result, and the losses over the steps."""
    steps = list(transfer.pictures)
    if len(steps) > _MOST_PICTURES:
        places = [round(i * (len(steps) - 1) / (_MOST_PICTURES - 1)) for i in range(_MOST_PICTURES)]
        steps = [steps[place] for place in places]
    shown = {"content": transfer.content, "style": transfer.style}
    shown |= {f"step {step}": transfer.pictures[step] for step in steps}
    rows = -(-len(shown) // _MOST_COLUMNS)
    columns = -(-len(shown) // rows)
    figure = new_sheet(2.3 * columns, 2.5 * rows + 2.6)
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.5 * rows, 2.4])
    above, below = parts
    panels = list(above.subplots(rows, columns, squeeze=False).flat)
    for axes, (name, image) in zip(panels, shown.items(), strict=False):
        draw_image(axes, image, name)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    axes = below.subplots()
    lines = zip(transfer.losses.items(), ("#0072B2", "#D55E00", "#009E73", "#1a1a1a"), strict=True)
    for ((name, values), colour), line in zip(lines, ("--", "-.", ":", "-"), strict=True):
        if any(values):
            axes.plot(range(len(values)), values, line, color=colour, label=name)
    axes.set(yscale="log", xlabel="steps", ylabel="weighted loss (no unit)")
    axes.yaxis.set_major_formatter("{x:g}")
    # A loss that begins at 0 would flatten the others.
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 1e-4 * max(transfer.losses["total"])))
    figure.legend(loc="outside lower left", ncols=4)
    return figure
