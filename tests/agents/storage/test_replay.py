"""Transitions and frames stored apart, and the batches sampled from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stable_baselines3.common.buffers import NStepReplayBuffer
from support.event_streams import EVENTS, Event, Seen, Step, Stream
from support.property_tests import given, settings, st

from agents.storage.codecs import PixelCodec
from agents.storage.layout import layout_bytes, replay_layout
from agents.storage.replay import FrameReplay, ReplayBatch
from agents.storage.samplers import NStepReturns, UniformSampler
from envs.atari import AtariVecEnv
from envs.errors import UserError
from envs.stacking import FrameStacking

GAMMA = 0.9


def make_replay(stream: Stream, buffer_size: int, seed: int | None = 0) -> FrameReplay:
    return FrameReplay(buffer_size, 5, stream.n_envs, stream.codec, seed=seed)


def filled(steps: int, buffer_size: int, n_envs: int = 2) -> tuple[Stream, FrameReplay]:
    stream = Stream(n_envs, FrameStacking(depth=2, channels=1))
    replay = make_replay(stream, buffer_size)
    replay.begin(stream.reset())
    rng = np.random.default_rng(1)
    for _ in range(steps):
        replay.add(*stream.step([EVENTS[i] for i in rng.choice(4, n_envs, p=[0.7, 0.1, 0.1, 0.1])]))
    return stream, replay


def all_transitions(replay: FrameReplay, returns: NStepReturns) -> tuple[Any, Any, ReplayBatch]:
    """Times, environments and contents of everything that could be sampled."""
    pairs = [(t, e) for e in range(replay.n_envs) for t in range(replay.first[e], replay.pos)]
    times, envs = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return times.tolist(), envs.tolist(), replay.transitions(times, envs, returns)


def expected_window(seen: list[Seen], time: int, n_steps: int) -> tuple[float, float, np.ndarray]:
    """Return, discount and last observation, from the definition."""
    total, discount = 0.0, 1.0
    for step in seen[time : time + n_steps]:
        total += discount * step.reward
        discount *= GAMMA
        if step.ended:
            break
    return total, 0.0 if step.terminated else discount, step.next_observation


def check_against(replay: FrameReplay, stream: Stream, n_steps: int) -> None:
    if not len(replay):
        return
    times, envs, batch = all_transitions(replay, NStepReturns(n_steps, GAMMA))
    assert len(times) == len(replay)
    seen = [stream.seen[env][time] for time, env in zip(times, envs, strict=True)]
    windows = [
        expected_window(stream.seen[env], time, n_steps)
        for time, env in zip(times, envs, strict=True)
    ]
    totals, discounts, last = (np.array(part) for part in zip(*windows, strict=True))
    assert np.array_equal(batch.observations, np.stack([step.observation for step in seen]))
    assert batch.actions.tolist() == [step.action for step in seen]
    np.testing.assert_allclose(batch.rewards, totals, atol=1e-5)
    np.testing.assert_allclose(batch.discounts, discounts, rtol=1e-6)
    bootstrapped = discounts > 0
    assert np.array_equal(batch.next_observations.numpy()[bootstrapped], last[bootstrapped])


@settings(max_examples=80)
@given(data=st.data())
def test_whatever_happens_every_transition_left_is_what_was_seen(data: st.DataObject) -> None:
    stacking = FrameStacking(
        depth=data.draw(st.sampled_from([1, 2, 4]), "depth"),
        channels=data.draw(st.sampled_from([1, 3]), "channels"),
        padding=data.draw(st.sampled_from(["zeros", "repeat"]), "padding"),
    )
    stream = Stream(data.draw(st.sampled_from([1, 3]), "environments"), stacking)
    replay = make_replay(stream, stream.n_envs * data.draw(st.integers(1, 9), "capacity"))
    replay.begin(stream.reset())
    replay.check_valid()
    event = st.sampled_from(EVENTS)
    steps = st.lists(event, min_size=stream.n_envs, max_size=stream.n_envs)
    operation = st.one_of(steps, steps, steps, st.sampled_from(["reset", "join"]))
    for events in data.draw(st.lists(operation, max_size=30), "operations"):
        if events == "reset":
            replay.begin(stream.reset())
        elif events == "join":
            replay.begin(stream.join())
        else:
            replay.add(*stream.step(events))
        replay.check_valid()
        newest = replay.newest_observations()
        assert np.array_equal(newest.numpy(), stream.observations())
    for n_steps in (1, 3):
        check_against(replay, stream, n_steps)


@pytest.mark.parametrize("event", ["goes on", "life lost", "ended"])
def test_without_truncations_every_place_is_used(event: Event) -> None:
    stream = Stream(2, FrameStacking(4, 1))
    replay = make_replay(stream, 20)
    replay.begin(stream.reset())
    for step in range(1, 35):
        replay.add(*stream.step([event] * 2))
        assert len(replay) == 2 * min(step, 10)


def test_truncations_take_the_room_of_the_oldest_transitions_and_no_more() -> None:
    stream = Stream(2, FrameStacking(1, 1))
    replay = make_replay(stream, 400)
    replay.begin(stream.reset())
    for _ in range(500):
        replay.add(*stream.step(["cut off", "goes on"]))
    # Each truncated step takes two of the ring's 204 places.
    assert replay.pos - replay.first == pytest.approx([101, 200])
    check_against(replay, stream, 2)


def test_one_truncation_in_a_hundred_steps_costs_nothing() -> None:
    stream = Stream(1, FrameStacking(4, 1))
    replay = make_replay(stream, 300)
    replay.begin(stream.reset())
    for step in range(1000):
        replay.add(*stream.step(["cut off" if step % 100 == 50 else "goes on"]))
    assert len(replay) == 300


@pytest.mark.parametrize("obs", ["grey", pytest.param("rgb", marks=pytest.mark.slow)])
def test_atari_observations_come_back_bit_equal(obs: Any) -> None:
    venv = AtariVecEnv(
        "ALE/Breakout-v5", 4, obs=obs, obs_size=36, seed=3, num_threads=1, max_episode_steps=100
    )
    # The ring of the first goes round; the second holds everything.
    codec = PixelCodec(venv.frame_stacking, venv.observation_space.shape)
    replays = [FrameReplay(size, int(venv.action_space.n), 4, codec) for size in (200, 10_000)]
    observations = venv.reset()
    for replay in replays:
        replay.begin(observations)
    seen: list[list[Seen]] = [[] for _ in range(4)]
    rng = np.random.default_rng(0)
    lives_lost = truncated = 0
    for _ in range(250):
        actions = rng.integers(venv.action_space.n, size=4)
        new_observations, rewards, dones, infos = venv.step(actions)
        for env, info in enumerate(infos):
            lives_lost += info.get("life_loss", False)
            cut_off = info.get("TimeLimit.truncated", False)
            truncated += cut_off
            next_observation = info.get("terminal_observation", new_observations[env])
            transition = (observations[env], actions[env], rewards[env], next_observation)
            seen[env].append(Seen(*transition, dones[env] and not cut_off, dones[env]))
        for replay in replays:
            replay.add(actions, rewards, dones, infos, new_observations)
        observations = new_observations
    venv.close()
    assert lives_lost > 4
    assert truncated >= 4
    stream = Stream(4, venv.frame_stacking)
    stream.seen = seen
    for replay in replays:
        replay.check_valid()
        check_against(replay, stream, 1)


@pytest.mark.parametrize("n_steps", [1, 3, 7])
@pytest.mark.parametrize("steps", [5, 20, 33])
def test_n_step_returns_equal_stable_baselines3s(n_steps: int, steps: int) -> None:
    stream = Stream(1, FrameStacking(1, 1))
    ours = make_replay(stream, 20)
    theirs = NStepReplayBuffer(
        20, stream.observation_space, stream.action_space, n_steps=n_steps, gamma=GAMMA
    )
    observations = stream.reset()
    ours.begin(observations)
    rng = np.random.default_rng(steps)
    for _ in range(steps):
        step = stream.step([EVENTS[rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])]])
        ours.add(*step)
        last = [info.get("terminal_observation") for info in step.infos]
        after = step.observations if last[0] is None else np.stack(last)
        theirs.add(observations, after, step.actions, step.rewards, step.dones, step.infos)
        observations = step.observations
    times, _, batch = all_transitions(ours, NStepReturns(n_steps, GAMMA))
    samples = theirs._get_samples(np.array(times) % 20)
    assert samples.discounts is not None
    assert torch.equal(batch.observations, samples.observations)
    assert torch.equal(batch.actions, samples.actions.flatten().long())
    torch.testing.assert_close(batch.rewards, samples.rewards.flatten())
    goes_on = 1 - samples.dones
    torch.testing.assert_close(batch.discounts, (goes_on * samples.discounts).flatten())
    kept = goes_on.flatten().bool()
    assert torch.equal(batch.next_observations[kept], samples.next_observations[kept])


def test_sampling_is_uniform_over_environments_that_hold_unequally_many() -> None:
    bounds = torch.tensor([10, 0, 9, 10, 4])
    times, envs, weights = UniformSampler("cpu", seed=0).sample(170_000, bounds)
    assert (weights == 1).all()
    counts = torch.zeros((10, 4), dtype=torch.int64)
    counts.index_put_((times, envs), torch.ones_like(times), accumulate=True)
    expected = torch.zeros((10, 4), dtype=torch.bool)
    expected[0:, 0], expected[9:, 1], expected[4:, 3] = True, True, True
    assert not counts[~expected].any()
    # 17 places, 10,000 draws each, standard deviation 97.
    assert (counts[expected] - 10_000).abs().max() < 500


def test_the_same_seed_draws_the_same_batches() -> None:
    (_, one), (_, other) = filled(30, 40), filled(30, 40)
    returns = NStepReturns(3, GAMMA)
    for _ in range(3):
        for ours, theirs in zip(one.sample(8, returns), other.sample(8, returns), strict=True):
            assert torch.equal(ours, theirs)
    assert not torch.equal(one.sample(8, returns).rewards, one.sample(8, returns).rewards)


@pytest.mark.parametrize("steps", [0, 3, 50])
def test_a_snapshot_goes_on_as_if_nothing_had_happened(tmp_path: Path, steps: int) -> None:
    stream, replay = filled(steps, 40)
    path = tmp_path / "replay.safetensors"
    replay.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    copy = make_replay(stream, 40, seed=99)
    copy.load(path)
    copy.check_valid()
    for _ in range(30):
        step = stream.step(["goes on", "cut off"])
        replay.add(*step)
        copy.add(*step)
        copy.check_valid()
        returns = NStepReturns(3, GAMMA)
        for ours, theirs in zip(replay.sample(8, returns), copy.sample(8, returns), strict=True):
            assert torch.equal(ours, theirs)
    check_against(copy, stream, 3)


def test_a_snapshot_holds_only_what_is_filled(tmp_path: Path) -> None:
    stream = Stream(1, FrameStacking(1, 1), size=(20, 20))
    replay = make_replay(stream, 10_000)
    replay.begin(stream.reset())
    for _ in range(10):
        replay.add(*stream.step(["goes on"]))
    replay.save(tmp_path / "replay")
    frames = 11 * 400
    generator = replay.sampler.generator.get_state().nbytes
    assert (tmp_path / "replay").stat().st_size < frames + generator + 2000


def test_snapshots_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    stream, replay = filled(5, 40)
    path = tmp_path / "replay.safetensors"
    with pytest.raises(UserError, match="cannot read the replay snapshot"):
        replay.load(path)
    replay.save(path)
    with pytest.raises(UserError, match=r"^the replay snapshot .* does not fit: its shapes is"):
        make_replay(stream, 42).load(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot read the replay snapshot"):
        replay.load(path)
    with pytest.raises(UserError, match="cannot write the replay snapshot"):
        replay.save(tmp_path / "missing" / "replay.safetensors")


@pytest.mark.parametrize("lacking", ["frames", "truncated", "pushed", "generator"])
def test_a_snapshot_that_lacks_a_tensor_leaves_the_replay_as_it_was(
    tmp_path: Path, lacking: str
) -> None:
    path = tmp_path / "replay.safetensors"
    filled(9, 40)[1].save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        kept = {name: file.get_tensor(name) for name in file.keys() if name != lacking}  # noqa: SIM118
    save_file(kept, path, metadata=metadata)
    stream, replay = filled(5, 40)
    with pytest.raises(UserError, match=f"cannot read the replay snapshot .*{lacking}"):
        replay.load(path)
    replay.check_valid()
    check_against(replay, stream, 1)
    replay.add(*stream.step(["goes on", "ended"]))
    check_against(replay, stream, 1)


@pytest.mark.parametrize("n_envs", [1, 8, 128, 1024])
def test_a_million_grey_transitions_take_at_most_7_2_gigabytes(n_envs: int) -> None:
    codec = PixelCodec(FrameStacking(4, 1), (4, 84, 84))
    assert layout_bytes(replay_layout(1_000_000, 18, n_envs, codec)) <= 7.2e9


def test_memory_needed_is_what_is_taken() -> None:
    stream = Stream(3, FrameStacking(4, 3))
    needed = layout_bytes(replay_layout(50, 5, 3, stream.codec))
    assert needed == make_replay(stream, 50).nbytes


def test_wrong_arguments_are_told_in_one_line() -> None:
    stream = Stream(8, FrameStacking(4, 1))
    with pytest.raises(UserError, match="buffer_size 7 has no room"):
        make_replay(stream, 7)
    stream.stacking = FrameStacking(4, 3)
    with pytest.raises(UserError, match=r"stacks 4 frames of 3 channels.*have 4 channels"):
        make_replay(stream, 80)


def test_the_order_of_calls_is_checked() -> None:
    stream = Stream(1, FrameStacking(1, 1))
    replay = make_replay(stream, 10)
    with pytest.raises(UserError, match="no transition to sample"):
        replay.sample(4, NStepReturns(1, GAMMA))
    stream.reset()
    step: Step = stream.step(["goes on"])
    with pytest.raises(RuntimeError, match=r"begin\(\) must come before add"):
        replay.add(*step)


@pytest.mark.gpu
def test_sampling_on_the_gpu_never_waits_for_it_and_equals_the_host() -> None:
    stream, on_host = filled(50, 40)
    on_gpu = FrameReplay(40, 5, 2, stream.codec, "cuda", seed=0)
    twin = Stream(2, stream.stacking)
    on_gpu.begin(twin.reset())
    rng = np.random.default_rng(1)
    for _ in range(50):
        on_gpu.add(*twin.step([EVENTS[i] for i in rng.choice(4, 2, p=[0.7, 0.1, 0.1, 0.1])]))
    on_gpu.check_valid()
    returns = NStepReturns(3, GAMMA, "cuda")
    on_gpu.sample(8, returns)
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu.sample(8, returns)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    times, envs, expected = all_transitions(on_host, NStepReturns(3, GAMMA))
    batch = on_gpu.transitions(
        torch.tensor(times, device="cuda"), torch.tensor(envs, device="cuda"), returns
    )
    for ours, theirs in zip(batch, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)
