"""A function captured as a graph, what it does then, and what becomes of it where it cannot be."""

from __future__ import annotations

import logging

import pytest
import torch
from tape import TapeRecorder

from agents.graphs import (
    WARM_UP_CALLS,
    Graphed,
    can_capture_steps,
    keep_rates_on_device,
    make_recorder,
    tensors_of,
)

CPU = torch.device("cpu")


class Counter:
    """Adds up what it is given, times a factor that lies in a tensor."""

    def __init__(self) -> None:
        self.total, self.factor = torch.zeros(2), torch.ones(())

    @torch.no_grad()
    def add(self, given: torch.Tensor) -> torch.Tensor:
        self.total += self.factor * given
        return self.total.clone()

    def reads(self) -> list[torch.Tensor]:
        return [self.total, self.factor]


def graphed(counter: Counter, recorder: TapeRecorder | None) -> Graphed[torch.Tensor]:
    return Graphed(counter.add, "sum", CPU, recorder, reads=counter.reads)


def test_every_call_counts_once_before_and_after_the_capture() -> None:
    recorder, counter = TapeRecorder(), Counter()
    add = graphed(counter, recorder)
    for call in range(1, 8):
        given = torch.tensor([1.0, call])
        assert add(given).tolist() == [call, call * (call + 1) / 2]
    assert (recorder.warm_ups, recorder.captures) == (WARM_UP_CALLS, 1)
    assert recorder.replays == 7 - WARM_UP_CALLS


def test_what_is_filled_in_place_is_read_anew_and_the_result_overwritten() -> None:
    counter = Counter()
    add = graphed(counter, TapeRecorder())
    for _ in range(4):
        first = add(torch.ones(2))
    counter.factor.fill_(10.0)
    second = add(torch.ones(2))
    assert second.tolist() == [14, 14]
    assert second.data_ptr() == first.data_ptr()


@pytest.mark.parametrize(
    "change", ["a tensor that it reads", "what learns", "the shape of an argument"]
)
def test_it_is_captured_anew_after_a_change_of(change: str) -> None:
    recorder, counter = TapeRecorder(), Counter()
    add = graphed(counter, recorder)
    for _ in range(5):
        add(torch.ones(2))
    assert add.ready(torch.ones(2))
    given = torch.ones(2)
    if change == "a tensor that it reads":
        counter.factor = torch.tensor(10.0)
    elif change == "what learns":
        counter.factor.requires_grad_()
    else:
        given = torch.ones(1)
    assert not add.ready(given)
    added = 10 if change == "a tensor that it reads" else 1
    for call in range(1, 6):
        assert add(given).tolist() == [5 + call * added] * 2
    assert add.ready(given)
    assert (recorder.warm_ups, recorder.captures) == (2 * WARM_UP_CALLS, 2)


def test_what_waits_for_the_device_runs_uncaptured_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wait(given: torch.Tensor) -> torch.Tensor:
        return given * given.sum().item()

    run = Graphed(wait, "update", CPU, TapeRecorder())
    with caplog.at_level(logging.WARNING):
        assert [run(torch.tensor([2.0])).item() for _ in range(6)] == [4.0] * 6
    assert caplog.messages == [
        "the update runs without a CUDA graph: aten._local_scalar_dense.default would wait for the"
        " device"
    ]
    assert run.ready(torch.tensor([2.0]))


def test_what_the_function_itself_raises_is_raised() -> None:
    def broken(given: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Graphed(broken, "update", CPU, TapeRecorder())(torch.ones(1))


def test_random_numbers_go_on_from_replay_to_replay() -> None:
    def draws(recorder: TapeRecorder | None) -> list[float]:
        generator = torch.Generator().manual_seed(0)

        def draw() -> torch.Tensor:
            return torch.empty(1).exponential_(generator=generator)

        drawing = Graphed(draw, "draw", CPU, recorder, generators=[generator])
        return [drawing().item() for _ in range(8)]

    assert draws(TapeRecorder()) == draws(None)


def test_there_are_no_graphs_on_a_cpu() -> None:
    assert make_recorder(torch.device("cpu")) is None
    counter = Counter()
    add = graphed(counter, None)
    assert add.ready(torch.ones(2))
    assert add(torch.ones(2)).tolist() == [1, 1]


def test_an_optimisers_rates_become_tensors_that_stay() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [{"params": weights[:1], "lr": 0.5}, {"params": weights[1:]}]
    optimizer = torch.optim.Adam(groups, lr=0.25, fused=True)
    keep_rates_on_device(optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    keep_rates_on_device(optimizer)
    assert all(a is group["lr"] for a, group in zip(rates, optimizer.param_groups, strict=True))
    assert [rate.item() for rate in rates] == [0.5, 0.25]
    assert len(list(tensors_of(optimizer))) == 4
    for weight in weights:
        weight.grad = torch.ones(2)
    optimizer.step()
    # Two moments and a count for each.
    assert len(list(tensors_of(optimizer))) == 4 + 2 * 3


def test_only_steps_that_count_on_the_device_can_be_captured() -> None:
    weight = [torch.nn.Parameter(torch.ones(2))]
    assert can_capture_steps(torch.optim.Adam(weight, fused=True))
    assert not can_capture_steps(torch.optim.Adam(weight))
    assert not can_capture_steps(torch.optim.SGD(weight, lr=0.1))


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
