"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rlcnn.supervised.averaging import WeightAverage


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2))


def learn(model: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(5, 1, 8, 8)).square().mean().backward()
    optimizer.step()


@pytest.mark.usefixtures("one_thread")
def test_it_is_torchs_average_to_the_bit_except_for_counts() -> None:
    model = network()
    own = WeightAverage(model, 0.9)
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for updates in (1, 2, 3):
        learn(model)
        own.update()
        torchs.update_parameters(model)
        average, expected = own.state_dict(), torchs.state_dict()
        # A count is copied: an average of counts counts nothing.
        assert average.pop("module.1.num_batches_tracked") == updates
        del expected["module.1.num_batches_tracked"]
        assert average.keys() == expected.keys()
        assert all(torch.equal(average[name], expected[name]) for name in expected)


def test_it_goes_on_from_its_own_state_and_from_torchs() -> None:
    model = network()
    straight = WeightAverage(model, 0.5)
    learn(model)
    straight.update()
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    torchs.update_parameters(model)
    states = [straight.state_dict(), torchs.state_dict()]
    resumed = [WeightAverage(model, 0.5) for _ in states]
    for average, state in zip(resumed, states, strict=True):
        average.load_state_dict({name: value.clone() for name, value in state.items()})
    learn(model)
    for average in (straight, *resumed):
        average.update()
        assert torch.equal(average.module[0].weight, straight.module[0].weight)  # type: ignore[index,union-attr]
