"""Between host and device without waiting for either."""

from __future__ import annotations

import numpy as np
import torch


def pinned(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values`` where copies to ``device`` wait for nothing: for a GPU, in pinned memory.

    Torch keeps such memory and hands it out again when the copies from it are done.

    Args:
        values: an array or tensor of the host; a tensor of the device is handed back.
        device: where they will go.
    """
    tensor = torch.as_tensor(values)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)


def upload(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values`` on ``device``, in order with what its current stream was told to do."""
    return pinned(values, device).to(device, non_blocking=True)


class Readback:
    """Brings a result to the host, which goes on until it asks for it.

    Args:
        device: where results come from.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = torch.cuda.Event() if device.type == "cuda" else None
        self._host = torch.empty(0)

    def start(self, result: torch.Tensor) -> None:
        """Copies it as soon as it is computed."""
        if self._host.shape != result.shape or self._host.dtype != result.dtype:
            on_gpu = self._event is not None
            self._host = torch.empty(result.shape, dtype=result.dtype, pin_memory=on_gpu)
        self._host.copy_(result, non_blocking=True)
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(self._device))

    def wait(self) -> np.ndarray:
        """What was copied last, when it is there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy().copy()
