"""The pretend GPU's view of each operation, below autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from support.pretend_gpu.device import PretendGPU
from support.pretend_gpu.schema import INDEXING, WAITS, tensors_in, traits


class Operations(TorchDispatchMode):
    """Decides where each operation runs, and reports what a GPU would not do."""

    def __init__(self, gpu: PretendGPU) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            if self._gpu.context.ignore:
                return func(*args, **(kwargs or {}))
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation, of the host or of the device."""
        gpu = self._gpu
        does, name = traits(func), str(func)
        inputs = list(tensors_in((args, kwargs)))
        devices = [gpu.device_of(tensor) for tensor in inputs]
        creates = does.creates and gpu.context.wanted is not None
        if creates:
            device = str(gpu.context.wanted)
        elif "cuda" in devices or (does.creates and gpu.context.gpu_argument):
            device = "cuda"
        else:
            device = "cpu"
        written = [t for place in does.written for t in tensors_in(place(args, kwargs))]
        if device != "cuda":
            for tensor in inputs:
                gpu.touched_by_host(tensor, name, any(tensor is w for w in written))
            return gpu.execute(func, args, kwargs, device)
        if does.copies and devices[0] != devices[1]:
            non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
            return gpu.copy(inputs[0], inputs[1], non_blocking)
        if not creates:
            self._check_devices(func, inputs, devices)
        masks = func.overloadpacket in INDEXING and any(
            t.dtype in (torch.bool, torch.uint8) for t in tensors_in(args[1])
        )
        if func.overloadpacket in WAITS or masks:
            gpu.wait(name)
        graph_ = gpu.timeline.current.capture
        if graph_ is not None:
            graph_.save(written)
        result = gpu.execute(func, args, kwargs, "cuda")
        storages = {t.untyped_storage()._cdata for t in inputs}
        new = [
            tensor
            for tensor in tensors_in(result)
            if creates or tensor.untyped_storage()._cdata not in storages
        ]
        # In inference mode, an operation that may view, such as reshape(), comes as a whole.
        if does.views and not new:
            return result
        if graph_ is not None:
            graph_.record(func, args, kwargs, result)
        reads = {m for t in inputs if (m := gpu.memory_of(t)) is not None and m.device == "cuda"}
        writes = {m for t in written if (m := gpu.memory_of(t)) is not None}
        writes.update(gpu.mark(tensor, "cuda") for tensor in new)
        gpu.access(name, reads - writes, writes)
        return result

    def _check_devices(self, func: Any, inputs: list[torch.Tensor], devices: list[str]) -> None:
        """Refuses tensors of two devices where a GPU refuses them."""
        odd = [t for t, device in zip(inputs, devices, strict=True) if device == "cpu" and t.ndim]
        if not odd:
            return
        whole = inputs[0], inputs[-1] if "put" in str(func) else inputs[0]
        if func.overloadpacket in INDEXING and not any(t is w for t in odd for w in whole):
            self._gpu.wait(f"{func} by indices of the host")
            return
        shapes = ", ".join(f"{d} {tuple(t.shape)}" for t, d in zip(inputs, devices, strict=True))
        self._gpu.report(f"two devices: {func} of {shapes}")
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0"
            f" and cpu! ({func} of {shapes})"
        )
