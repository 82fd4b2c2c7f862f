"""Prioritised draws: a tree of sums, and a sampler that follows its replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import stats
from support.event_streams import EVENTS, Stream
from support.property_tests import given, settings, st

from agents.storage.prioritized import Priorities, PrioritizedSampler
from agents.storage.replay import FrameReplay
from agents.storage.samplers import NStepReturns
from agents.storage.sum_tree import SumTree
from envs.errors import UserError
from envs.stacking import FrameStacking

OPTIONS = Priorities(alpha=0.6, beta_initial=0.4, beta_final=1.0, uniform_share=0.0, epsilon=0.01)
RETURNS = NStepReturns(3, 0.9)


def make_replay(
    stream: Stream, buffer_size: int, options: Priorities | None = OPTIONS, seed: int = 0
) -> FrameReplay:
    return FrameReplay(buffer_size, 5, stream.n_envs, stream.codec, seed=seed, priorities=options)


def filled(
    steps: int, buffer_size: int = 40, options: Priorities | None = OPTIONS
) -> tuple[Stream, FrameReplay]:
    """Two environments, whose transitions have different priorities if there are any."""
    stream = Stream(2, FrameStacking(depth=2, channels=1))
    replay = make_replay(stream, buffer_size, options)
    replay.begin(stream.reset())
    rng = np.random.default_rng(1)
    for _ in range(steps):
        replay.add(*stream.step([EVENTS[i] for i in rng.choice(4, 2, p=[0.7, 0.1, 0.1, 0.1])]))
    if steps:
        times, envs = held(replay)
        replay.set_priorities(times * 2 + envs, torch.from_numpy(rng.random(len(times))).float())
    return stream, replay


def held(replay: FrameReplay) -> tuple[torch.Tensor, torch.Tensor]:
    """Times and environments of all transitions."""
    pairs = [(t, e) for e in range(replay.n_envs) for t in range(replay.first[e], replay.pos)]
    times, envs = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return times, envs


def sampler_of(replay: FrameReplay) -> PrioritizedSampler:
    assert isinstance(replay.sampler, PrioritizedSampler)
    return replay.sampler


def priorities(replay: FrameReplay) -> dict[tuple[int, int], float]:
    """Of all places whose priority is not 0, to the power of alpha, by row and environment."""
    leaves = sampler_of(replay)._tree.leaves.view(replay.capacity, replay.n_envs)
    return {(row, env): leaves[row, env].item() for row, env in leaves.nonzero().tolist()}


@pytest.mark.parametrize("size", [1, 127, 128, 5_000, 2_500_000])
def test_a_tree_finds_the_place_that_cumulative_sums_find(size: int) -> None:
    rng = np.random.default_rng(size)
    numbers = rng.random(size) * (rng.random(size) < 0.5)
    numbers[rng.integers(size)] = 3
    tree = SumTree(size, "cpu")
    tree.leaves.copy_(torch.from_numpy(numbers))
    tree.rebuild()
    assert tree.total().item() == pytest.approx(numbers.sum())
    changed = rng.integers(size, size=60)
    changed[:20] = changed[20:40]
    values = rng.random(60)
    values[::3] = 0
    tree.set(torch.from_numpy(changed), torch.from_numpy(values))
    numbers[changed] = 0
    np.maximum.at(numbers, changed, values)
    assert np.array_equal(tree.leaves, numbers)
    shares = rng.random(1000)
    shares[:2] = 0, np.nextafter(1, 0)
    places = tree.find(torch.from_numpy(shares)).numpy()
    assert (numbers[places] > 0).all()
    ends = numbers.cumsum()
    target = shares * ends[-1]
    assert (target <= ends[places] + 1e-9 * ends[-1]).all()
    assert (target >= ends[places] - numbers[places] - 1e-9 * ends[-1]).all()


@pytest.mark.parametrize("size", [1, 300, 20_000])
def test_a_tree_of_zeros_finds_a_place_without_a_number(size: int) -> None:
    tree = SumTree(size, "cpu")
    places = tree.find(torch.rand(50, dtype=torch.float64))
    assert (places <= size).all()
    assert not tree.numbers(places).any()


class Reference:
    """Priorities in a dictionary, by time and environment."""

    def __init__(self, alpha: float, epsilon: float) -> None:
        self.alpha, self.epsilon, self.largest = alpha, epsilon, 1.0
        self.held: dict[tuple[int, int], float] = {}

    def follow(self, replay: FrameReplay) -> None:
        times, envs = held(replay)
        pairs = zip(times.tolist(), envs.tolist(), strict=True)
        self.held = {pair: self.held.get(pair, self.largest) for pair in pairs}

    def set(self, pairs: list[tuple[int, int]], values: list[float]) -> None:
        powers = [(value + self.epsilon) ** self.alpha for value in values]
        self.largest = max([self.largest, *powers])
        for pair in set(pairs) & self.held.keys():
            self.held[pair] = max(p for p, at in zip(powers, pairs, strict=True) if at == pair)

    def check(self, replay: FrameReplay) -> None:
        expected = {(t % replay.capacity, e): p for (t, e), p in self.held.items()}
        actual = priorities(replay)
        assert actual.keys() == expected.keys()
        assert list(map(actual.get, expected)) == pytest.approx(list(expected.values()), rel=1e-6)


@settings(max_examples=60)
@given(data=st.data())
def test_whatever_happens_priorities_are_those_of_the_transitions_left(data: st.DataObject) -> None:
    stream = Stream(
        data.draw(st.sampled_from([1, 3]), "environments"),
        FrameStacking(data.draw(st.sampled_from([1, 4]), "depth"), 1),
    )
    replay = make_replay(stream, stream.n_envs * data.draw(st.integers(1, 9), "capacity"))
    reference = Reference(OPTIONS.alpha, OPTIONS.epsilon)
    replay.begin(stream.reset())
    # Those of batches that are still being learned from.
    drawn: list[tuple[int, int]] = []
    steps = st.lists(st.sampled_from(EVENTS), min_size=stream.n_envs, max_size=stream.n_envs)
    operation = st.one_of(steps, steps, st.sampled_from(["begin", "reset", "draw", "set", "set"]))
    for what in data.draw(st.lists(operation, max_size=30), "operations"):
        if what == "begin":
            replay.begin(stream.reset())
        elif what == "reset":
            replay.reset()
        elif what == "draw" and len(replay):
            places = replay.sample(4).places
            drawn = [divmod(place, replay.n_envs) for place in places.tolist()]
            assert set(drawn) <= reference.held.keys()
        elif what == "set" and drawn:
            values = data.draw(st.lists(st.floats(0, 9, width=32), min_size=4, max_size=4))
            places = torch.tensor([time * replay.n_envs + env for time, env in drawn])
            replay.set_priorities(places, torch.tensor(values))
            reference.set(drawn, values)
        elif isinstance(what, list):
            replay.add(*stream.step(what))
        reference.follow(replay)
        reference.check(replay)
        replay.check_valid()


@pytest.mark.parametrize("uniform_share", [0.0, 0.3])
def test_draws_follow_the_powers_of_priorities(uniform_share: float) -> None:
    _, replay = filled(50, options=OPTIONS._replace(uniform_share=uniform_share))
    sampler, (times, envs) = sampler_of(replay), held(replay)
    leaves = sampler._tree.leaves[times % replay.capacity * 2 + envs]
    chances = (1 - uniform_share) * leaves / leaves.sum() + uniform_share / len(leaves)
    torch.testing.assert_close(sampler.probabilities(times, envs, replay._bounds), chances)
    draw = sampler.sample(200_000, replay._bounds)
    numbers = {pair: n for n, pair in enumerate(zip(times.tolist(), envs.tolist(), strict=True))}
    drawn = zip(draw.times.tolist(), draw.envs.tolist(), strict=True)
    counts = np.bincount([numbers[pair] for pair in drawn], minlength=len(numbers))
    assert stats.chisquare(counts, chances.numpy() * 200_000).pvalue > 0.01


def test_new_transitions_have_the_largest_priority_so_far() -> None:
    stream, replay = filled(5, options=OPTIONS._replace(epsilon=0.0))
    replay.set_priorities(torch.tensor([4]), torch.tensor([7.0]))
    replay.set_priorities(torch.tensor([4]), torch.tensor([0.5]))
    replay.add(*stream.step(["goes on", "goes on"]))
    new = [priorities(replay)[5, env] for env in (0, 1)]
    assert new == pytest.approx([7**0.6] * 2)


def test_weighted_draws_have_the_expected_gradient_of_uniform_ones() -> None:
    _, replay = filled(30)
    sampler, (times, envs) = sampler_of(replay), held(replay)
    gradients = torch.randn(len(times), 5, dtype=torch.float64)
    sampler.anneal(1.0)
    chances = sampler.probabilities(times, envs, replay._bounds)
    assert chances.sum().item() == pytest.approx(1)
    # A batch's weights are those of its transitions but for one factor.
    draw = sampler.sample(64, replay._bounds)
    drawn = sampler.probabilities(draw.times, draw.envs, replay._bounds)
    factors = draw.weights * drawn * len(times)
    torch.testing.assert_close(factors, factors[:1].expand(64), rtol=1e-6, atol=0)
    assert draw.weights.max() == 1
    expected = (chances / (len(times) * chances)) @ gradients
    torch.testing.assert_close(expected, gradients.mean(0))


@pytest.mark.parametrize("progress, beta", [(0.0, 0.4), (0.5, 0.7), (1.0, 1.0)])
def test_beta_is_annealed(progress: float, beta: float) -> None:
    _, replay = filled(30)
    sampler = sampler_of(replay)
    sampler.anneal(progress)
    draw = sampler.sample(16, replay._bounds)
    weights = (len(replay) * sampler.probabilities(draw.times, draw.envs, replay._bounds)) ** -beta
    torch.testing.assert_close(draw.weights, (weights / weights.max()).float())


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_priorities_that_say_nothing_still_draw_transitions(value: float) -> None:
    _, replay = filled(30, options=OPTIONS._replace(epsilon=0.0))
    times, envs = held(replay)
    replay.set_priorities(times * 2 + envs, torch.full((len(times),), value))
    batch = replay.sample(100)
    assert set(batch.places.tolist()) <= set((times * 2 + envs).tolist())
    assert (batch.weights == 1).all()
    replay.check_valid()


@pytest.mark.parametrize("steps", [0, 3, 50])
def test_a_snapshot_goes_on_to_the_bit(tmp_path: Path, steps: int) -> None:
    stream, replay = filled(steps)
    replay.save(tmp_path / "replay")
    copy = make_replay(stream, 40, seed=99)
    copy.load(tmp_path / "replay")
    rng = np.random.default_rng(2)
    for _ in range(30):
        step = stream.step(["goes on", "cut off"])
        for each in (replay, copy):
            each.add(*step)
        batches = [each.sample(8, RETURNS) for each in (replay, copy)]
        for ours, theirs in zip(*batches, strict=True):
            assert torch.equal(ours, theirs)
        new = torch.from_numpy(rng.random(8)).float()
        for each in (replay, copy):
            each.set_priorities(batches[0].places, new)
            each.check_valid()
    assert torch.equal(*(sampler_of(each)._tree.sums for each in (replay, copy)))


def test_a_snapshot_without_priorities_gives_all_transitions_the_same(tmp_path: Path) -> None:
    _, replay = filled(50, options=None)
    replay.save(tmp_path / "replay")
    _, copy = filled(9)
    copy.load(tmp_path / "replay")
    copy.check_valid()
    assert set(priorities(copy).values()) == {1.0}
    assert len(priorities(copy)) == len(replay)
    _, prioritized = filled(50)
    prioritized.save(tmp_path / "replay")
    replay.load(tmp_path / "replay")
    assert (replay.sample(8).weights == 1).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_snapshot_of_another_alpha_is_converted(tmp_path: Path, alpha: float) -> None:
    stream, replay = filled(50)
    replay.save(tmp_path / "replay")
    copy = make_replay(stream, 40, OPTIONS._replace(alpha=alpha))
    copy.load(tmp_path / "replay")
    copy.check_valid()
    expected = {place: power ** (alpha / 0.6) for place, power in priorities(replay).items()}
    assert priorities(copy) == pytest.approx(expected)


def test_a_snapshot_that_lacks_a_part_of_the_priorities_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay.safetensors"
    _, replay = filled(20)
    replay.save(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    del tensors["priority_sums"]
    save_file(tensors, path, metadata=metadata)
    before: Any = priorities(replay)
    with pytest.raises(UserError, match=r"cannot read the replay snapshot .*priority_sums"):
        replay.load(path)
    assert priorities(replay) == before
