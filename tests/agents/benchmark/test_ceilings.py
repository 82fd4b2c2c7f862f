"""The parts of training alone, and the bound they set, calculated by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from support.tiny_agents import tiny

from agents.benchmark.ceilings import (
    CEILINGS,
    ceiling_variants,
    thread_counts,
    throughput_bound,
)
from agents.benchmark.stages import (
    Network,
    Variant,
    act,
    emulator_stage,
    environment_stage,
    ppo_loss,
    update_stage,
)
from agents.presets import preset_config

SHAPE = (4, 44, 44)


@pytest.mark.parametrize("cores, counts", [(1, [1]), (2, [1, 2]), (16, [1, 8, 16])])
def test_a_few_numbers_of_threads_are_tried(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts


def test_what_is_tried_on_a_cpu() -> None:
    variants = ceiling_variants(tiny("ppo", num_envs=3, num_threads=2, precision="bf16"), True)
    assert tuple(variants) == CEILINGS
    # No more threads than environments.
    assert list(variants["environment"]) == ["1 thread", "2 threads", "3 threads"]
    each = ("fp32", "bf16", "bf16 weights", "bf16 weights, compiled")
    threads = ("1 thread", "2 threads")
    assert list(variants["inference"]) == [f"{how}, {n}" for n in threads for how in each]
    each = ("fp32", "bf16", "bf16, compiled")
    assert list(variants["update"]) == [f"{how}, {n}" for n in threads for how in each]


def test_nothing_is_tried_that_was_not_asked_for() -> None:
    variants = ceiling_variants(tiny("ppo"), compiling=False)
    assert list(variants["inference"]) == list(variants["update"]) == ["fp32, 1 thread"]


@pytest.mark.parametrize("part", [{"augment": "drq"}, {"head": "iqn"}, {"noisy": True}])
def test_what_draws_random_numbers_is_not_compiled(part: dict[str, Any]) -> None:
    config = tiny("dqn")
    config = replace(config, dqn=replace(config.dqn, **part))
    assert list(ceiling_variants(config, compiling=True)["update"]) == ["fp32, 1 thread"]


def test_what_is_tried_on_a_gpu() -> None:
    config = tiny("ppo", device="cuda", precision="bf16", num_threads=4)
    variants = ceiling_variants(config, compiling=True)
    ways = ("fp32", "bf16", "bf16, graph", "bf16, compiled", "bf16, compiled, graph")
    assert list(variants["update"]) == [f"{how}, 4 threads" for how in ways]


@pytest.mark.parametrize("algo", ["ppo", pytest.param("dqn", marks=pytest.mark.slow)])
def test_every_way_can_be_measured(algo: Any) -> None:
    variants = ceiling_variants(tiny(algo, precision="bf16"), compiling=False)
    for ways in variants.values():
        for make in ways.values():
            stage = make()
            assert stage.measure(1e-9) > 0
            stage.close()


@pytest.mark.parametrize("part", [{"augment": "drq"}, {"head": "dueling-iqn", "noisy": True}])
def test_the_update_of_a_variant_can_be_measured(part: dict[str, Any]) -> None:
    config = tiny("dqn")
    config = replace(config, dqn=replace(config.dqn, batch_size=2, **part)).resolve()
    assert update_stage(config, SHAPE, 3, Variant("fp32", 1)).measure(1e-9) > 0


def test_both_environments_play_on() -> None:
    for stage in (emulator_stage(tiny("ppo"), 1), environment_stage(tiny("ppo"))):
        assert stage.measure(1e-9) > 0
        stage.close()


def network(outputs: int) -> Network:
    return Network(tiny("ppo"), SHAPE, outputs, bf16=False)


def observations(count: int) -> torch.Tensor:
    return torch.randint(256, (count, *SHAPE), dtype=torch.uint8)


def test_actions_are_drawn_from_the_policy() -> None:
    torch.manual_seed(0)
    net = network(outputs=3)
    with torch.no_grad():
        net.q_net[0].weight.zero_()
        # Probabilities 0.8 and 0.2, and a value.
        net.q_net[0].bias.copy_(torch.tensor([0.8, 0.2, 7.0]).log())
    actions, values, log_probs = act(net, observations(1).expand(2_000, -1, -1, -1))
    share = actions.float().mean().item()
    # Four standard deviations of 2,000 draws.
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 2_000) ** 0.5
    expected = torch.tensor([0.8, 0.2]).log()[actions]
    torch.testing.assert_close(log_probs.squeeze(1), expected)
    torch.testing.assert_close(values, torch.full((2_000, 1), 7.0).log())


def test_ppos_loss_at_the_policy_that_played() -> None:
    torch.manual_seed(0)
    net = network(outputs=4)
    seen = observations(6)
    actions = torch.tensor([0, 1, 2, 0, 1, 2])[:, None]
    with torch.no_grad():
        logits, values = net(seen).tensor_split([-1], dim=1)
    probs = logits.softmax(dim=1)
    old = probs.gather(1, actions).squeeze(1).log()
    returns = values.squeeze(1) + 2
    loss = ppo_loss(net, seen, actions, torch.stack([old, torch.randn(6), returns]), 0.1, 0.5, 0.01)
    # The ratio is 1 and the mean of normalised advantages 0: what is left is the error of the
    # values, 2 squared, and the entropy.
    entropy = -(probs * probs.log()).sum(dim=1).mean()
    torch.testing.assert_close(loss, 0.5 * 4 - 0.01 * entropy, rtol=1e-4, atol=1e-5)


def test_the_bound_where_one_resource_does_everything_in_turn() -> None:
    bound = partial(throughput_bound, samples=4, overlapped=False)
    # 1/8000 + 1/8000 + 4/16000 = 1/2000
    assert bound(8_000, 8_000, 16_000) == pytest.approx(2_000)
    # 1/6000 + 1/12000 + 4/8000 = (2 + 1 + 6)/12000
    assert bound(6_000, 12_000, 8_000) == pytest.approx(12_000 / 9)


def test_the_bound_with_a_gpu_is_that_of_the_slower_side() -> None:
    bound = partial(throughput_bound, samples=4, overlapped=True)
    # The GPU alone: 1/12000 + 4/8000 = 7/12000
    assert bound(6_000, 12_000, 8_000) == pytest.approx(12_000 / 7)
    assert bound(1_000, 12_000, 8_000) == 1_000


def test_ppo_learns_from_a_step_once_in_each_epoch() -> None:
    assert preset_config("zoo", "ppo").hyperparameters.samples_per_step == 4


@pytest.mark.parametrize("updates, samples", [(1, 8), (2, 16), (-1, 32)])
def test_dqn_learns_from_a_batch_in_each_update(updates: int, samples: float) -> None:
    config = preset_config("zoo", "dqn")
    config = replace(config, dqn=replace(config.dqn, gradient_steps=updates))
    assert (config.dqn.batch_size, config.dqn.train_freq) == (32, 4)
    assert config.hyperparameters.samples_per_step == samples
