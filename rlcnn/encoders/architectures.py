"""The image classification networks of torchvision and timm, by name.

Each library is imported at the first use of one of its networks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from envs.errors import UserError, first_line, nearest

TIMM = "timm:"

# Default nodes of torchvision's networks: the last output of a block at an eighth of the image's
# side. For ResNets that is layer2, as in PIE-G (Yuan et al. 2022, "Pre-trained image encoder for
# generalizable visual reinforcement learning"): early layers serve control better than late ones
# (also Parisi et al. 2022, "The unsurprising effectiveness of pre-trained vision models for
# control"). Transformers are used whole; Swin's output is feature maps, that of ViTs tokens.
DEFAULT_NODES = {
    r"alexnet": "features.4",
    r"convnext_.*": "features.3",
    r"densenet.*": "features.transition2.conv",
    r"efficientnet_.*": "features.3",
    r"googlenet": "inception3b",
    r"inception_v3": "Mixed_5d",
    r"maxvit_.*": "blocks.1",
    r"mnasnet.*": "layers.9",
    r"mobilenet_v2": "features.6",
    r"mobilenet_v3_large": "features.6",
    r"mobilenet_v3_small": "features.3",
    r"regnet_.*": "trunk_output.block2",
    r"(wide_)?res(net|next)\d+.*": "layer2",
    r"shufflenet_.*": "stage2",
    r"squeezenet1_0": "features.10",
    r"squeezenet1_1": "features.7",
    r"swin_.*": "permute",
    r"vgg11": "features.14",
    r"vgg11_bn": "features.20",
    r"vgg13": "features.18",
    r"vgg13_bn": "features.26",
    r"vgg16": "features.22",
    r"vgg16_bn": "features.32",
    r"vgg19": "features.26",
    r"vgg19_bn": "features.38",
    r"vit_.*": "encoder",
}

# Their ImageNet weights come from TensorFlow, which scales images to [-1, 1]. torchvision takes its
# usual mean and std and undoes them inside the network (``transform_input``).
_SCALED_TO_ONE = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class Architecture:
    """A network that classifies RGB images, and how its images are scaled."""

    name: str  # in its library, with the prefix "timm:" for timm
    mean: tuple[float, ...]  # of its RGB images, for values in [0, 1]
    std: tuple[float, ...]  # likewise
    build: Callable[[], nn.Module]  # with its classifier, freshly initialised
    cut: Callable[[nn.Module, str], nn.Module]  # at a node: images -> {"features": its output}
    nodes: Callable[[nn.Module], list[str]]  # names in the order of computation
    default_node: Callable[[nn.Module], str]  # to cut ``build()``'s network at for control
    # Downloads its ImageNet weights, or reads them from the library's cache, checked.
    imagenet: Callable[[], Mapping[str, torch.Tensor]]
    import_hint: str  # address of those weights
    crop: int  # side in pixels of the square crop that the weights were evaluated on
    resize: int  # shorter side that photographs were resized to before the crop
    interpolation: str  # of this resizing: "bilinear", "bicubic" ...
    classes: tuple[str, ...]  # names of the classes of the ImageNet weights, by index

    def download(self) -> Mapping[str, torch.Tensor]:
        """ImageNet weights by the network's own names; a UserError where they cannot be had."""
        try:
            return self.imagenet()
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f'cannot download the ImageNet weights of "{self.name}" ({first_line(error)}); get '
                f"{self.import_hint} elsewhere and give the file in place of imagenet."
            ) from error


def list_architectures() -> list[str]:
    """Names of torchvision's image classification networks, sorted."""
    from torchvision import models

    return models.list_models(module=models)


def find_architecture(name: str) -> Architecture | None:
    """The network of ``list_architectures()`` or "timm:NAME", or None.

    A UserError says that timm is not installed, or does not have this network.
    """
    if name.startswith(TIMM):
        return _of_timm(name)
    return _of_torchvision(name) if name in list_architectures() else None


def published_sizes() -> dict[str, int]:
    """Number of parameters of each of torchvision's networks, from its documentation."""
    from torchvision import models

    return {
        name: int(models.get_model_weights(name).DEFAULT.meta["num_params"])
        for name in list_architectures()
    }


def _of_torchvision(name: str) -> Architecture:
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
    from torchvision.ops import StochasticDepth

    # As a leaf it checks the training mode itself, so one graph serves both modes.
    tracing = {"leaf_modules": [StochasticDepth]}
    weights: Any = models.get_model_weights(name).DEFAULT
    transforms = weights.transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    options: dict[str, Any] = {}
    if name in _SCALED_TO_ONE:
        mean = std = (0.5, 0.5, 0.5)
        options = {"aux_logits": False, "init_weights": True}
    default = next(node for pattern, node in DEFAULT_NODES.items() if re.fullmatch(pattern, name))
    return Architecture(
        name=name,
        mean=mean,
        std=std,
        build=lambda: models.get_model(name, weights=None, **options),
        cut=lambda model, node: create_feature_extractor(
            model, {node: "features"}, tracer_kwargs=tracing, suppress_diff_warning=True
        ),
        nodes=lambda model: get_graph_node_names(model, tracing, suppress_diff_warning=True)[1],
        default_node=lambda _: default,
        imagenet=lambda: weights.get_state_dict(progress=True, check_hash=True),
        import_hint=weights.url,
        crop=transforms.crop_size[0],
        resize=transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        classes=tuple(weights.meta["categories"]),
    )


def _of_timm(name: str) -> Architecture:
    from torchvision import models

    try:
        import timm
    except ImportError as error:
        raise UserError(
            f'encoder "{name}" needs timm, which is not installed: pip install "rlcnn[timm]".'
        ) from error
    own_name = name.removeprefix(TIMM)
    try:
        config: Any = timm.get_pretrained_cfg(own_name, allow_unregistered=False)
    except RuntimeError as error:
        known = timm.list_models(pretrained=True)
        raise UserError(f'timm has no model "{own_name}".{nearest(own_name, known)}') from error
    # timm has no names of classes: ImageNet's are those of torchvision.
    classes = tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])
    if config.num_classes != len(classes):
        classes = tuple(f"class {index}" for index in range(config.num_classes))
    return Architecture(
        name=name,
        mean=tuple(config.mean),
        std=tuple(config.std),
        build=lambda: _build_timm(own_name),
        # timm's own functions handle layers that cannot be traced.
        cut=lambda model, node: timm.models.create_feature_extractor(model, {node: "features"}),
        nodes=lambda model: timm.models.get_graph_node_names(model)[1],
        default_node=_stride_8,
        imagenet=lambda: timm.create_model(own_name, pretrained=True).state_dict(),
        import_hint=config.url or f"its model.safetensors ({config.hf_hub_id})",
        crop=config.input_size[-1],
        resize=math.floor(config.input_size[-1] / config.crop_pct),
        interpolation=config.interpolation,
        classes=classes,
    )


def _build_timm(name: str) -> nn.Module:
    """A new network of timm; a transformer takes images of any size that its patches divide.

    It interpolates its position embeddings, which keep the size of the published weights.
    """
    import timm

    try:
        return timm.create_model(name, pretrained=False, dynamic_img_size=True)
    except TypeError:
        # Other networks do not have this argument.
        return timm.create_model(name, pretrained=False)


def _stride_8(model: nn.Module) -> str:
    """The last of a timm model's feature maps with at least an eighth of the image's side."""
    levels: Any = getattr(model, "feature_info", None) or []
    nodes = [level["module"] for level in levels if level["reduction"] <= 8]
    if not nodes:
        example = f", such as {levels[len(levels) // 2]['module']}" if levels else ""
        raise UserError(
            f"this network of timm has no default node: name one, timm:NAME:NODE{example};"
            " scripts/probe_encoder.py --node-sweep ranks them."
        )
    return nodes[-1]


# Names in weights published before torch forbade dots in module names; torchvision renames alike.
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def current_name(tensor_name: str) -> str:
    """The name in today's network of a tensor in a published weights file."""
    return _DENSE_LAYER.sub(r"\1\2", tensor_name)
