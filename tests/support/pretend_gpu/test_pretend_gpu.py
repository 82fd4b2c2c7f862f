"""That the pretend GPU behaves as one, and that each fault it is to find is found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from support.pretend_gpu import CUDA, PretendGPU

HOST = torch.device("cpu")


def captured(function: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        function()
    return recording


def found(gpu: PretendGPU, kind: str) -> None:
    """Exactly one violation, of this kind, here."""
    (violation,) = gpu.take_violations()
    assert kind in violation
    assert "tests/support/pretend_gpu/test_pretend_gpu.py" in violation


def test_tensors_say_where_they_are(pretend_gpu: PretendGPU) -> None:
    made = torch.zeros(2, 3, device="cuda")
    moved = torch.ones(2, 3).to("cuda")
    layer = nn.Linear(3, 2).to("cuda")
    results = [made + moved, layer(made), made[:, 1], made.new_ones(2), torch.zeros_like(made)]
    for tensor in (made, moved, layer.weight, *results, torch.as_tensor([1.0], device=CUDA)):
        assert tensor.device == CUDA
        assert tensor.is_cuda
        assert not tensor.is_cpu
    on_host = torch.zeros_like(made, device="cpu")
    for tensor in (torch.zeros(2), made.cpu(), made.to("cpu"), on_host):
        assert tensor.device == HOST
    assert copy.deepcopy(layer).weight.device == CUDA
    assert made.to(torch.int64).device == CUDA
    assert torch.zeros(2).to(made).device == CUDA
    with torch.inference_mode():
        assert made.to(torch.int64).t().reshape(6).device == CUDA


def test_gradients_and_optimisers_stay_on_the_device(pretend_gpu: PretendGPU) -> None:
    layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    layer.to("cuda")
    pretend_gpu.events.clear()
    for options in ({"fused": True}, {"foreach": True}, {"foreach": False}):
        optimizer = torch.optim.Adam(layer.parameters(), **options)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = layer(torch.rand(3, 1, 4, 4, device="cuda")).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 0.5)
        optimizer.step()
        assert {p.grad.device for p in layer.parameters() if p.grad is not None} == {CUDA}
    assert not pretend_gpu.events


def test_the_device_draws_from_generators_of_its_own(pretend_gpu: PretendGPU) -> None:
    torch.manual_seed(0)
    host = torch.get_rng_state()
    first = torch.rand(4, device="cuda"), torch.rand(4, device="cuda")
    assert torch.equal(torch.get_rng_state(), host)
    torch.cuda.manual_seed(0)
    assert torch.equal(first[0].cpu(), torch.rand(4, device="cuda").cpu())
    generator = torch.Generator("cuda").manual_seed(1)
    state = torch.cuda.get_rng_state()
    torch.rand(2, generator=generator, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), state)
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type"):
        torch.rand(2, generator=generator)
    found(pretend_gpu, "Expected a 'cpu' device type")


def test_a_graph_runs_again_in_the_same_memory(pretend_gpu: PretendGPU) -> None:
    given, total = torch.ones(2, device="cuda"), torch.zeros(2, device="cuda")
    factor, results = torch.tensor(2.0), []

    def add() -> None:
        total.add_(given * factor)
        results.append(total + torch.rand(2, device="cuda"))

    torch.cuda.manual_seed(3)
    recording = captured(add)
    assert total.tolist() == [0, 0]
    assert results[0].isnan().all()
    factor.fill_(100.0)
    for replay in range(1, 4):
        recording.replay()
        assert total.tolist() == [2 * replay] * 2
    torch.cuda.manual_seed(3)
    drawn = [torch.rand(2, device="cuda") for _ in range(3)]
    assert torch.equal((results[0] - total), drawn[-1])
    given.fill_(0.5)
    recording.replay()
    assert total.tolist() == [7, 7]
    assert (pretend_gpu.captures, pretend_gpu.replays) == (1, 4)


def test_copies_and_streams_that_wait_are_no_fault(pretend_gpu: PretendGPU) -> None:
    host = torch.arange(4.0).pin_memory()
    assert host.is_pinned()
    assert torch.empty(2, pin_memory=True).is_pinned()
    side, event = torch.cuda.Stream(), torch.cuda.Event()
    device = host.to("cuda", non_blocking=True)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        device.mul_(2)
        back = device.to("cpu", non_blocking=True)
        event.record()
    event.synchronize()
    assert back.numpy().tolist() == [0, 2, 4, 6]
    torch.cuda.current_stream().wait_event(event)
    device.add_(1)
    torch.cuda.synchronize()
    host.zero_()
    assert not pretend_gpu.waits


# Each with what is reported of it.
def mixed(device: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match="found at least two devices"):
        device + torch.ones(4)


def stored_by_index_of_the_other_device(device: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match="found at least two devices"):
        torch.zeros(4).index_copy_(0, torch.arange(4, device="cuda"), torch.zeros(4))


def read_before_the_copy_is_done(device: torch.Tensor) -> None:
    host = torch.empty(4).pin_memory()
    host.copy_(device, non_blocking=True)
    host.sum()


def array_before_the_copy_is_done(device: torch.Tensor) -> None:
    np.asarray(device.to("cpu", non_blocking=True))


def read_in_pageable_memory_before_the_copy_is_done(device: torch.Tensor) -> None:
    host = torch.empty(4)
    host.copy_(device, non_blocking=True)
    torch.zeros(4).index_copy_(0, torch.arange(4), host)


def overwritten_while_it_is_copied(device: torch.Tensor) -> None:
    host = torch.ones(4).pin_memory()
    device.copy_(host, non_blocking=True)
    host.zero_()


def read_in_another_stream(device: torch.Tensor) -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        device.sum()


def overwritten_in_another_stream(device: torch.Tensor) -> None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        device.sum()
    device.zero_()


def replayed_in_another_stream(device: torch.Tensor) -> None:
    recording = captured(lambda: device.add_(1))
    recording.replay()
    with torch.cuda.stream(torch.cuda.Stream()):
        recording.replay()


def used_by_a_thread_with_a_stream(device: torch.Tensor) -> None:
    def run() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            device.sum()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (mixed, "two devices: aten.add.Tensor"),
        (stored_by_index_of_the_other_device, "two devices: aten.index_copy_"),
        (read_before_the_copy_is_done, "too early: aten.sum.default on the host"),
        (array_before_the_copy_is_done, "too early: __array__ on the host"),
        (read_in_pageable_memory_before_the_copy_is_done, "too early: aten.index_copy_"),
        (overwritten_while_it_is_copied, "too early: aten.zero_.default on the host"),
        (read_in_another_stream, "race: aten.sum.default reads"),
        (overwritten_in_another_stream, "race: aten.zero_.default writes"),
        (replayed_in_another_stream, "race: a graph's replay"),
        (used_by_a_thread_with_a_stream, "race: aten.sum.default reads"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_is_found(
    fault: Callable[[torch.Tensor], None], kind: str, pretend_gpu: PretendGPU
) -> None:
    fault(torch.ones(4, device="cuda"))
    found(pretend_gpu, kind)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda device: device[0].item(), "aten._local_scalar_dense"),
        (lambda device: bool(device[0] > 0), "aten"),
        (lambda device: device.nonzero(), "aten.nonzero"),
        (lambda device: device[device > 0], "aten.index.Tensor"),
        (lambda device: device.cpu(), "copy to the host"),
        (lambda device: device.tolist(), "tolist"),
        (lambda device: device[torch.tensor([1])], "by indices of the host"),
        (lambda device: torch.tensor([1.0], device="cuda"), "from pageable memory"),
        (lambda device: torch.as_tensor(np.ones(2), device="cuda"), "from pageable memory"),
        (lambda device: device.copy_(torch.zeros(4)), "from pageable memory"),
        (lambda device: torch.zeros(4).to("cuda", non_blocking=True), "from pageable memory"),
        (lambda device: torch.cuda.synchronize(), "torch.cuda.synchronize()"),
        (
            lambda device: torch.rand(1, device="cuda", generator=torch.Generator("cuda")),
            "a generator that is not registered",
        ),
    ],
)
def test_a_capture_is_spoilt_as_on_a_gpu(
    function: Callable[[torch.Tensor], Any], what: str, pretend_gpu: PretendGPU
) -> None:
    device, before = torch.ones(4, device="cuda"), torch.cuda.current_stream()

    def caught() -> None:
        device.zero_()
        with pytest.raises(RuntimeError, match="operation not permitted when stream is capturing"):
            function(device)

    with pytest.raises(RuntimeError, match="failed due to a previous error during capture"):
        captured(caught)
    found(pretend_gpu, what)
    # Torch does not come back to where it was.
    assert torch.cuda.current_stream() is not before
    assert not torch.cuda.is_current_stream_capturing()
    torch.cuda.current_stream().wait_stream(before)
    # Nothing of a capture is ever computed.
    assert device.tolist() == [1, 1, 1, 1]


def test_what_a_graph_reads_of_pinned_memory_is_reported(pretend_gpu: PretendGPU) -> None:
    host, device = torch.ones(2).pin_memory(), torch.zeros(2, device="cuda")
    captured(lambda: device.copy_(host, non_blocking=True))
    found(pretend_gpu, "which every replay would do again")


def test_waits_are_counted_and_can_be_refused(pretend_gpu: PretendGPU) -> None:
    device = torch.ones(2, device="cuda")
    device.sum().item()
    device.copy_(torch.zeros(2))
    assert pretend_gpu.waits == 2
    torch.cuda.set_sync_debug_mode("error")
    device.add_(1)
    with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        device.cpu()


def test_afterwards_there_is_no_gpu(pretend_gpu: PretendGPU) -> None:
    assert torch.cuda.is_available()
    assert torch.accelerator.current_accelerator() == torch.device("cuda")


def test_and_nothing_is_left_of_it() -> None:
    assert torch.Generator.__module__ == "torch._C"
    assert "support" not in torch.cuda.is_available.__module__
    assert not torch.overrides._get_current_function_mode_stack()
