"""A function captured as a graph, also where it cannot be captured."""

from __future__ import annotations

import logging

import pytest
import torch
from support.pretend_gpu import CUDA, PretendGPU

from envs.errors import UserError
from rlcnn.accelerate.cuda_graphs import WARM_UP_CALLS, CudaRecorder, Graphed, make_recorder


class Counter:
    """Adds up its arguments, times a factor in a tensor."""

    def __init__(self, device: torch.device = CUDA) -> None:
        self.total = torch.zeros(2, device=device)
        self.factor = torch.ones((), device=device)

    @torch.no_grad()
    def add(self, given: torch.Tensor) -> torch.Tensor:
        self.total += self.factor * given
        return self.total.clone()

    def reads(self) -> list[torch.Tensor]:
        return [self.total, self.factor]


def graphed(counter: Counter) -> Graphed[torch.Tensor]:
    device = counter.total.device
    return Graphed(counter.add, "sum", device, make_recorder(device), reads=counter.reads)


def ones(count: int = 2) -> torch.Tensor:
    return torch.ones(count, device=CUDA)


def test_every_call_counts_once_before_and_after_the_capture(pretend_gpu: PretendGPU) -> None:
    add = graphed(Counter())
    for call in range(1, 8):
        assert pretend_gpu.captures == int(call > WARM_UP_CALLS + 1)
        given = torch.tensor([1.0, call])
        assert add(given).tolist() == [call, call * (call + 1) / 2]
    assert (pretend_gpu.captures, pretend_gpu.replays) == (1, 7 - WARM_UP_CALLS)


def test_what_is_filled_in_place_is_read_anew_and_the_result_overwritten(
    pretend_gpu: PretendGPU,
) -> None:
    counter = Counter()
    add = graphed(counter)
    for _ in range(4):
        first = add(ones())
    counter.factor.fill_(10.0)
    second = add(ones())
    assert second.tolist() == [14, 14]
    assert second.data_ptr() == first.data_ptr()


@pytest.mark.parametrize(
    "change", ["a tensor that it reads", "what learns", "the shape of an argument"]
)
def test_it_is_captured_anew_after_a_change_of(change: str, pretend_gpu: PretendGPU) -> None:
    counter, given = Counter(), ones()
    add = graphed(counter)
    for _ in range(5):
        add(given)
    assert add.ready(given)
    if change == "a tensor that it reads":
        counter.factor = torch.tensor(10.0, device=CUDA)
    elif change == "what learns":
        counter.factor.requires_grad_()
    else:
        given = ones(1)
    assert not add.ready(given)
    added = 10 if change == "a tensor that it reads" else 1
    for call in range(1, 6):
        assert add(given).tolist() == [5 + call * added] * 2
    assert add.ready(given)
    assert (pretend_gpu.captures, pretend_gpu.replays) == (2, 2 * (5 - WARM_UP_CALLS))


def test_a_function_that_python_cannot_capture_runs_uncaptured_on_the_device(
    pretend_gpu: PretendGPU, caplog: pytest.LogCaptureFixture
) -> None:
    devices: list[torch.device] = []

    def refuse(given: torch.Tensor) -> torch.Tensor:
        devices.append(given.device)
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("not in a graph\nmore lines")
        return given * 2

    stream = torch.cuda.current_stream()
    run = Graphed(refuse, "update", CUDA, make_recorder(CUDA))
    # Inputs of the host, as a step of the environments is.
    given = torch.tensor([2.0])
    with caplog.at_level(logging.WARNING):
        results = [run(given) for _ in range(6)]
    assert caplog.messages == ["the update runs without a CUDA graph: not in a graph"]
    assert {*devices} == {*(result.device for result in results)} == {CUDA}
    assert [result.item() for result in results] == [4.0] * 6
    assert torch.cuda.current_stream() is stream
    assert (pretend_gpu.captures, pretend_gpu.replays) == (1, 0)
    assert run.ready(given)


def test_what_cuda_refuses_to_capture_is_one_line_and_the_stream_is_restored(
    pretend_gpu: PretendGPU,
) -> None:
    def wait(given: torch.Tensor) -> torch.Tensor:
        return given * given.sum().item()

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        run = Graphed(wait, "update", CUDA, make_recorder(CUDA))
        given = torch.tensor([2.0])
        assert [run(given).item() for _ in range(WARM_UP_CALLS)] == [4.0] * WARM_UP_CALLS
        with pytest.raises(UserError, match="CUDA refused to capture the update") as caught:
            run(given)
        assert torch.cuda.current_stream() is side
    assert str(caught.value).endswith("Run again with --cuda-graphs off")
    assert "\n" not in str(caught.value)
    (violation,) = pretend_gpu.take_violations()
    assert violation.startswith("in a capture: aten._local_scalar_dense")


def test_what_the_function_itself_raises_is_raised(pretend_gpu: PretendGPU) -> None:
    def broken(given: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Graphed(broken, "update", CUDA, make_recorder(CUDA))(ones())


def test_random_numbers_go_on_from_replay_to_replay(pretend_gpu: PretendGPU) -> None:
    def draws(recorder: CudaRecorder | None) -> list[float]:
        generator = torch.Generator(CUDA).manual_seed(0)

        def draw() -> torch.Tensor:
            return torch.empty(1, device=CUDA).exponential_(generator=generator)

        drawing = Graphed(draw, "draw", CUDA, recorder, generators=[generator])
        return [drawing().item() for _ in range(8)]

    assert draws(make_recorder(CUDA)) == draws(None)


def test_uncaptured_a_host_tensor_is_brought_to_the_device(pretend_gpu: PretendGPU) -> None:
    run = Graphed(lambda given: given + 1, "sum", CUDA, None)
    assert run(torch.ones(2).pin_memory()).device == CUDA


def test_there_are_no_graphs_on_a_cpu() -> None:
    assert make_recorder(torch.device("cpu")) is None
    add = graphed(Counter(torch.device("cpu")))
    assert add.ready(torch.ones(2))
    assert add(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.gpu
def test_a_graph_of_the_gpu_counts_every_call_once_and_goes_on_drawing() -> None:
    device = torch.device("cuda")

    def sums(captured: bool) -> list[float]:
        generator = torch.Generator(device).manual_seed(0)
        total = torch.zeros((), device=device)

        def add(given: torch.Tensor) -> torch.Tensor:
            total.add_(given + torch.rand((), generator=generator, device=device))
            return total.clone()

        recorder = make_recorder(device) if captured else None
        run = Graphed(add, "sum", device, recorder, generators=[generator])
        return [run(torch.full((), float(i), device=device)).item() for i in range(8)]

    assert sums(captured=True) == sums(captured=False)
