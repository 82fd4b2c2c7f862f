"""Which pixels an output of a network depends on: gradients, Grad-CAM and occlusion.

Every function takes ``scores``, a callable of images that a network's owner supplies, such as the
logits of a classifier, or the log probabilities or Q values of an agent's actions. All but
:func:`gradient` use captum (extra ``visualize``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from envs.errors import UserError
from rlcnn.encoders.base import Encoder
from rlcnn.visualize.node_tap import tapped

Scores = Callable[[torch.Tensor], torch.Tensor]
"""Images of 0 to 255, float32 (batch, channels, height, width) -> scores (batch, outputs)."""

# The sum of integrated gradients differs from the output's difference by at most this share.
COMPLETENESS = 0.01

_MOST_STEPS = 512
_BATCH = 64

_log = logging.getLogger(__name__)


@contextmanager
def takes_pixels_as_floats(network: nn.Module) -> Iterator[None]:
    """Lets a network compute gradients of its input inside the block.

    Its encoders, which take uint8, then also take floats of 0 to 255, unrounded. It is in
    evaluation mode. Afterwards all is as before.
    """
    takers: list[Any] = [part for part in network.modules() if hasattr(part, "takes_floats")]
    before = [(part, part.takes_floats) for part in takers]
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        for part in takers:
            part.takes_floats = True
        yield
    finally:
        for part, floats in before:
            part.takes_floats = floats
        for module, training in modes:
            module.training = training


def gradient(scores: Scores, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Derivatives of each image's score by its pixels (Simonyan et al. 2014, section 3).

    Args:
        scores: see :data:`Scores`.
        images: uint8 or float, 0 to 255, (batch, channels, height, width).
        targets: int64 (batch,), the output that is explained for each image.

    Returns:
        float32, with the shape of ``images``. No gradient of a parameter changes.

    Raises:
        UserError: the scores have no gradient, as those of a quantised network.
    """
    pixels = _pixels(images).requires_grad_()
    return torch.autograd.grad(_chosen(scores, pixels, targets).sum(), pixels)[0]


def integrated_gradients(
    scores: Scores,
    images: torch.Tensor,
    targets: torch.Tensor,
    *,
    baseline: float | torch.Tensor = 0.0,
    steps: int = 64,
) -> torch.Tensor:
    """Gradients averaged on the way from a baseline, times the way (Sundararajan et al. 2017).

    Each image's attributions sum to its score minus the baseline's; steps are doubled until the sum
    is right within :data:`COMPLETENESS`. A warning says if it never is.

    Args:
        scores: see :data:`Scores`.
        images: as for :func:`gradient`.
        targets: as for :func:`gradient`.
        baseline: an image without information: one value of 0 to 255, by default black, or a tensor
            with the shape of ``images``.
        steps: points on the way, at first.

    Returns:
        float32, with the shape of ``images``, in units of the score.

    Raises:
        UserError: captum is missing, or the scores have no gradient.
    """
    captum = _captum()
    pixels = _pixels(images).requires_grad_()
    start = torch.as_tensor(baseline, dtype=torch.float32, device=pixels.device).expand_as(pixels)
    change = _chosen(scores, pixels, targets).detach()
    with torch.no_grad():
        change -= scores(start).gather(1, targets[:, None])[:, 0]
    while True:
        attributions = captum.IntegratedGradients(scores).attribute(
            pixels, start, target=targets, n_steps=steps, internal_batch_size=_BATCH
        )
        error = (attributions.flatten(1).sum(1) - change).abs()
        # Where parts cancel out, the difference may be close to 0.
        allowed = change.abs().clamp(min=COMPLETENESS * attributions.abs().flatten(1).sum(1))
        if bool((error <= COMPLETENESS * allowed).all()):
            return attributions.detach().float()
        if steps >= _MOST_STEPS:
            _log.warning(
                "integrated gradients sum to the scores' difference within %.2g only, not %.2g",
                float((error / change.abs()).max()),
                COMPLETENESS,
            )
            return attributions.detach().float()
        steps *= 2


def occlusion(
    scores: Scores,
    images: torch.Tensor,
    targets: torch.Tensor,
    *,
    window: int = 8,
    stride: int = 4,
    frame_channels: int | None = None,
    baseline: float = 0.0,
) -> torch.Tensor:
    """By how much a score falls when a square is covered (Zeiler & Fergus 2014, section 4.2).

    Args:
        scores: see :data:`Scores`.
        images: as for :func:`gradient`.
        targets: as for :func:`gradient`.
        window: side of the square in pixels.
        stride: pixels between two squares.
        frame_channels: channels of one frame of a stack, each of which is covered by itself; by
            default all channels are covered at once.
        baseline: value of covered pixels, 0 to 255.

    Returns:
        float32, with the shape of ``images``: the mean over the squares that cover a pixel.

    Raises:
        UserError: captum is missing, or the square is larger than the images.
    """
    captum = _captum()
    pixels = _pixels(images)
    channels, height, width = pixels.shape[1:]
    if not 1 <= stride <= window <= min(height, width):
        raise UserError(
            f"a square of {window} pixels every {stride} pixels cannot cover images of"
            f" {height}x{width}: expected 1 <= stride <= window <= {min(height, width)}"
        )
    depth = frame_channels or channels
    with torch.no_grad():
        covered = captum.Occlusion(scores).attribute(
            pixels,
            sliding_window_shapes=(depth, window, window),
            strides=(depth, stride, stride),
            baselines=baseline,
            target=targets,
            perturbations_per_eval=max(1, _BATCH // len(pixels)),
        )
    return covered.float()


def grad_cam(
    scores: Scores,
    encoder: Encoder,
    node: str,
    images: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """A node's maps, weighted by their mean gradients, where positive (Selvaraju et al. 2017).

    Args:
        scores: see :data:`Scores`; it must call ``encoder``.
        encoder: the encoder behind the scores.
        node: one of ``encoder.nodes()``, or a module, which means its last node.
        images: as for :func:`gradient`.
        targets: as for :func:`gradient`.

    Returns:
        float32, with the shape of ``images``, not negative: maps enlarged to the images, the same
        for all channels of a frame that the encoder encodes alone, or of the whole image.

    Raises:
        UserError: captum is missing, the scores have no gradient, there is no such node, or it has
            no maps, or maps of one pixel.
    """
    captum = _captum()
    pixels = _pixels(images).requires_grad_()
    _chosen(scores, pixels, targets)
    with tapped(encoder, node) as tap:
        _check_maps(scores, pixels, tap, f'node "{node}" of encoder "{encoder.name}"')
        maps = captum.LayerGradCam(scores, tap).attribute(
            pixels, target=targets, relu_attributions=True
        )
    batch, channels, height, width = pixels.shape
    maps = functional.interpolate(
        maps.detach().float(), (height, width), mode="bilinear", align_corners=False
    )
    frames = len(maps) // batch
    return maps.view(batch, frames, height, width).repeat_interleave(channels // frames, dim=1)


def strength(attributions: torch.Tensor, frames: int = 1) -> np.ndarray:
    """How strongly each pixel of each frame counts, whatever the sign.

    Args:
        attributions: float32 (batch, frames * channels, height, width).
        frames: frames of the stack.

    Returns:
        float32 (batch, frames, height, width): the sum of absolute values over a frame's channels.
    """
    return attributions.detach().abs().unflatten(1, (frames, -1)).sum(2).float().cpu().numpy()


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return images.detach().to(torch.float32, copy=True)


def _chosen(scores: Scores, pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The explained scores (batch,), from which gradients flow to ``pixels``."""
    with torch.enable_grad():
        chosen = scores(pixels).gather(1, targets[:, None])[:, 0]
    if not chosen.requires_grad:
        raise UserError(
            "the scores have no gradient by the pixels, as those of a quantised network: expected a"
            " network that computes in floating point, or occlusion"
        )
    return chosen


def _captum() -> Any:
    try:
        # Slow to import, and an extra.
        from captum import attr
    except ImportError as error:
        raise UserError(
            "this kind of saliency needs captum, which is not installed:"
            ' pip install "rlcnn[visualize]"'
        ) from error
    return attr


def _check_maps(scores: Scores, pixels: torch.Tensor, tap: nn.Module, node: str) -> None:
    shapes: list[tuple[int, ...]] = []
    hook = tap.register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(getattr(output, "shape", ())))
    )
    with hook, torch.no_grad():
        scores(pixels)
    if not shapes:
        raise UserError(f"{node} is not used by these scores")
    shape = shapes[0]
    if len(shape) != 4:
        made = f"an output of shape {shape[1:]}" if shape else "no tensor"
        raise UserError(
            f"{node} has no feature maps but {made}: Grad-CAM needs (channels, height, width)"
        )
    if max(shape[2:]) == 1:
        raise UserError(
            f"{node} has maps of 1x1 pixel, which show no place: name an earlier node for Grad-CAM"
        )
