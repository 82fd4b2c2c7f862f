"""Finds the published network that the tensors of a file belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from rlcnn.encoders.architectures import current_name, find_architecture, published_sizes
from rlcnn.encoders.base import Encoder
from rlcnn.encoders.registry import create_encoder, list_encoders

# Number of networks of about the same size that are compared tensor by tensor.
_COMPARED = 4


def nearest_architecture(encoder: Encoder, tensors: Mapping[str, torch.Tensor]) -> str:
    """A hint that names the encoder that ``tensors`` fit best, or nothing."""
    shapes = {current_name(name): tensor.shape for name, tensor in tensors.items()}
    overlaps: dict[str, float] = {}
    for name in [*list_encoders(), *_networks_of_size(tensors)]:
        try:
            with without_values():
                if architecture := find_architecture(name):
                    candidate = architecture.build().state_dict()
                else:
                    candidate = create_encoder(name, encoder.observation_shape).state_dict()
        except Exception:
            # The hint is not worth an error.
            continue
        fitting = sum(shapes.get(key) == tensor.shape for key, tensor in candidate.items())
        overlaps[name] = fitting / max(len(shapes), len(candidate))
    best = max(overlaps, key=lambda name: overlaps[name], default=encoder.name)
    if best == encoder.name.split(":")[0] or overlaps[best] < 0.5:
        return ""
    return f' It {"fits" if overlaps[best] == 1 else "is nearest to"} encoder "{best}".'


class without_values(TorchFunctionMode):  # noqa: N801
    """Creates parameters without values, for their shapes alone.

    The default device "meta" does not work for networks that compute their widths with tensors, as
    RegNet does.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _networks_of_size(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    counts = {n: tensor.numel() for n, tensor in tensors.items() if not n.endswith(buffers)}
    # A published size may leave out the auxiliary classifiers that the file holds.
    auxiliary = sum(count for name, count in counts.items() if name.lower().startswith("aux"))
    whole = sum(counts.values())
    sizes = published_sizes()
    return sorted(
        sizes, key=lambda name: min(abs(sizes[name] - size) for size in (whole, whole - auxiliary))
    )[:_COMPARED]
