"""Minibatches of sequences: which there are, and what they hold."""

from __future__ import annotations

import pytest
import torch
from support.frame_sequences import single_batches, walks

from envs.errors import UserError
from rlcnn.data.drq import apply_drq, draw_drq
from rlcnn.data.images import UNKNOWN, Actions, StackedFrames
from rlcnn.selfsupervised.sequences import SequenceBatches, sequence_starts


def batches(frames: StackedFrames, offsets: tuple[int, ...], size: int = 8) -> SequenceBatches:
    device = torch.device("cpu")
    return SequenceBatches(single_batches(frames), offsets, batch_size=size, seed=0, device=device)


def actions_of(frames: StackedFrames) -> Actions:
    assert frames.actions is not None
    return frames.actions


@pytest.mark.parametrize("steps", [1, 5, 11, 12, 100])
def test_a_sequence_lies_in_one_game_and_all_its_actions_are_known(steps: int) -> None:
    frames = walks(3, 12)
    actions_of(frames).taken[[4, 20]] = UNKNOWN
    assert frames.episodes is not None
    expected = []
    for row in range(len(frames) - steps):
        ids = frames.episodes.ids[row : row + steps + 1]
        taken = actions_of(frames).taken[row + 1 : row + steps + 1]
        if (ids == ids[0]).all() and (taken != UNKNOWN).all():
            expected.append(row)
    assert sequence_starts(frames, steps).tolist() == expected


def test_held_out_sequences_are_all_there_always_in_the_same_order() -> None:
    frames = walks(3, 12)
    # The label says which row it is.
    frames.labels = torch.arange(len(frames))[:, None]
    sequences = batches(frames, (0, 1, 3))
    found = list(sequences.held_out())
    rows = torch.cat([batch.labels for batch in found])[:, 0]
    assert torch.equal(rows.sort().values, sequences.starts)
    assert len(sequences) == 27
    assert not torch.equal(rows, sequences.starts)
    again = torch.cat([batch.labels for batch in sequences.held_out()])[:, 0]
    assert torch.equal(again, rows)
    for place, offset in enumerate((0, 1, 3)):
        observations = torch.cat([batch.observations[:, place] for batch in found])
        assert torch.equal(observations, frames.gather(rows + offset))
        assert torch.equal(found[0].at(offset), found[0].observations[:, place])
    actions = torch.cat([batch.actions for batch in found])
    assert torch.equal(actions, actions_of(frames).taken[rows[:, None] + torch.arange(1, 4)])


def test_an_epoch_shows_each_sequence_once_augmented_observation_by_observation() -> None:
    frames = walks(3, 12)
    sequences = batches(frames, (0, 1))
    assert (len(sequences), sequences.per_epoch) == (33, 4)
    found = list(sequences.epoch(0))
    # The remainder of one is skipped.
    assert [len(batch.labels) for batch in found] == [8] * 4
    first = found[0].observations
    assert first.dtype == torch.float32
    assert not torch.equal(first, next(iter(sequences.epoch(1))).observations)
    # Both observations of a sequence are shifted by draws of their own.
    numbers = draw_drq(2, torch.Generator().manual_seed(0))
    assert numbers.factors[0] != numbers.factors[1]
    image = torch.full((2, 1, 5, 5), 100, dtype=torch.uint8)
    assert apply_drq(image, numbers)[:, 0, 0, 0].unique().numel() == 2


@pytest.mark.parametrize("start", [0, 1, 3])
def test_an_epoch_goes_on_from_any_minibatch(start: int) -> None:
    whole = list(batches(walks(), (0, 2)).epoch(2))
    rest = list(batches(walks(), (0, 2)).epoch(2, start))
    assert len(rest) == len(whole) - start
    for one, other in zip(whole[start:], rest, strict=True):
        assert torch.equal(one.observations, other.observations)
        assert torch.equal(one.actions, other.actions)


def test_games_that_are_too_short_are_refused_in_one_line() -> None:
    with pytest.raises(UserError) as error:
        batches(walks(4, 5), (0, 5))
    assert str(error.value).startswith("the 20 frames have 0 sequences of 6 observations")
    assert "\n" not in str(error.value)
