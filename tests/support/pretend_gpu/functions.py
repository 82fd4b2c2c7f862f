"""The pretend GPU's view of torch's functions and methods, as Python calls them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from support.pretend_gpu.device import CUDA, PretendGPU

HOST_DATA = (torch.tensor, torch.as_tensor, torch.asarray)


class Functions(TorchFunctionMode):
    """Replaces functions that depend on a tensor's device, and notes which device others name."""

    def __init__(self, gpu: PretendGPU) -> None:
        super().__init__()
        self._gpu = gpu
        self._special = self._special_functions()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, context = dict(kwargs or {}), self._gpu.context
        if context.ignore:
            return func(*args, **kwargs)
        if (special := self._special.get(func)) is not None:
            return special(*args, **kwargs)
        wanted = _kind(kwargs.get("device"))
        if wanted == "cuda":
            kwargs["device"] = "cpu"
        pinned = kwargs.pop("pin_memory", False)
        before = context.wanted, context.gpu_argument, context.generator
        context.wanted = wanted or context.wanted
        context.generator = kwargs.get("generator") or context.generator
        context.gpu_argument |= any(
            self._gpu.device_of(tensor) == "cuda" for tensor in _direct(args, kwargs)
        )
        try:
            result = func(*args, **kwargs)
        finally:
            context.wanted, context.gpu_argument, context.generator = before
        if pinned:
            self._gpu.mark(result, "cpu", pinned=True)
        return result

    def _special_functions(self) -> dict[Any, Any]:
        tensor = torch.Tensor
        special = {
            tensor.device.__get__: lambda t: CUDA if self._on_gpu(t) else tensor.device.__get__(t),
            tensor.is_cuda.__get__: self._on_gpu,
            tensor.is_cpu.__get__: lambda t: t.device.type == "cpu" and not self._on_gpu(t),
            tensor.get_device: lambda t: 0 if self._on_gpu(t) else tensor.get_device(t),
            tensor.to: self._to,
            tensor.cpu: lambda t, **kwargs: self._to(t, "cpu", **kwargs),
            tensor.cuda: lambda t, device=None, **kwargs: self._to(t, "cuda", **kwargs),
            tensor.pin_memory: self._pin,
            tensor.is_pinned: lambda t, *_: bool((m := self._gpu.memory_of(t)) and m.pinned),
        }
        special |= {func: partial(self._from_host_data, func) for func in HOST_DATA}
        for func in (tensor.numpy, tensor.__array__, tensor.tolist, tensor.__reduce_ex__):
            special[func] = partial(self._to_python, func)
        special[tensor.__deepcopy__] = self._deepcopy
        return special

    def _on_gpu(self, tensor: torch.Tensor) -> bool:
        return self._gpu.device_of(tensor) == "cuda"

    def _to(self, tensor: torch.Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Any:
        if args and isinstance(args[0], torch.Tensor):
            args = (self._gpu.device_of(args[0]), args[0].dtype, *args[1:])
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        here = self._gpu.device_of(tensor)
        there = device.type if device is not None else here
        options = {"dtype": dtype or tensor.dtype, "memory_format": layout or torch.preserve_format}
        if there == here or there not in ("cpu", "cuda"):
            place = {"device": device} if there != here else {}
            return torch.Tensor.to(tensor, copy=copy, **options, **place)
        with self._gpu.unseen():
            result = torch.Tensor.to(tensor, copy=True, **options)
        # Torch copies to pinned memory where it is not to wait.
        self._gpu.mark(result, there, pinned=there == "cpu" and non_blocking)
        self._gpu.copy(result, tensor, non_blocking)
        return result

    def _pin(self, tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
        if (memory := self._gpu.memory_of(tensor)) is not None and memory.pinned:
            return tensor
        self._gpu.touched_by_host(tensor, "pin_memory()")
        with self._gpu.unseen():
            result = tensor.clone()
        self._gpu.mark(result, "cpu", pinned=True)
        return result

    def _from_host_data(self, func: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        device = kwargs.pop("device", None)
        pinned = kwargs.pop("pin_memory", False)
        if func is torch.as_tensor and args:
            kwargs["dtype"], args = args[0], args[1:]
        if isinstance(data, torch.Tensor) and func is not torch.tensor:
            return self._to(data, device=device, dtype=kwargs.get("dtype"))
        result = func(data, **kwargs)
        if pinned:
            self._gpu.mark(result, "cpu", pinned=True)
        return self._to(result, device=device) if device is not None else result

    def _to_python(self, func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self._on_gpu(tensor):
            # An array can be written to, too; what is done with it later is not seen.
            array = func in (torch.Tensor.numpy, torch.Tensor.__array__)
            self._gpu.touched_by_host(tensor, func.__name__, writes=array)
        elif func in (torch.Tensor.numpy, torch.Tensor.__array__):
            self._gpu.report("numpy of a tensor of the device")
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        else:
            self._gpu.wait(func.__name__)
        with self._gpu.unseen():
            return func(tensor, *args, **kwargs)

    def _deepcopy(self, tensor: torch.Tensor, memo: dict[int, Any]) -> Any:
        known = id(tensor) in memo
        with self._gpu.unseen():
            result = torch.Tensor.__deepcopy__(tensor, memo)
        if self._on_gpu(tensor) and not known and not self._on_gpu(result):
            source = self._gpu.memory_of(tensor)
            assert source is not None
            self._gpu.access("deepcopy", [source], [self._gpu.mark(result, "cuda")])
        return result


def _kind(device: Any) -> str | None:
    if device is None:
        return None
    return "cuda" if isinstance(device, int) else torch.device(device).type


def _direct(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    """Tensors among arguments, or in the first list of them."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, torch.Tensor))
