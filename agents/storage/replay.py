"""Off-policy storage: each frame once, on the training device or on the host.

Three parts make a batch: :class:`FrameReplay` stores transitions and frames apart, a
:class:`~agents.storage.samplers.Sampler` chooses transitions, and
:class:`~agents.storage.samplers.NStepReturns` sums their rewards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from agents.sb3.arguments import check_count
from agents.storage.codecs import FrameCodec
from agents.storage.episode_ends import read_ends
from agents.storage.frame_ring import FrameRing
from agents.storage.layout import STEP_COLUMNS, allocate, replay_layout, step_fields
from agents.storage.prioritized import Priorities, PrioritizedSampler
from agents.storage.samplers import NStepReturns, Sampler, UniformSampler
from agents.storage.snapshot import copy_rows, reading_snapshot, restore_generator, write_snapshot
from envs.errors import UserError
from rlcnn.accelerate.cuda_graphs import CudaRecorder, Graphed
from rlcnn.accelerate.transfers import PackedUpload, upload

_FORMAT = "rlcnn replay 1"


class ReplayBatch(NamedTuple):
    """Transitions, as Q-learning takes them."""

    observations: torch.Tensor  # (batch, depth * channels, height, width), as stored
    actions: torch.Tensor  # int64 (batch,)
    rewards: torch.Tensor  # float32 (batch,), the n-step return without its bootstrap
    next_observations: torch.Tensor  # as observations: those at the windows' ends
    discounts: torch.Tensor  # float32 (batch,), of the bootstrap; 0 at an end
    weights: torch.Tensor  # float32 (batch,), of the losses; 1 for the uniform sampler
    places: torch.Tensor  # int64 (batch,), time * environments + environment

    def to(self, device: torch.device) -> ReplayBatch:
        """The same batch on ``device``, except ``places``, which only the replay reads."""
        columns = [upload(tensor, device) for tensor in self[:-1]]
        return ReplayBatch._make([*columns, self.places])


class FrameReplay:
    """The last ``buffer_size`` transitions of environments in lockstep, one frame for each.

    A transition holds the number of its observation's newest frame; the next observation belongs to
    the frame after it. Two bits say different things: ``terminated``, that there is no value beyond
    (a real end or a lost life), and ``truncated``, that the episode was cut off but would have gone
    on: its last frame has its own place, between the frames of the two episodes. A third fact, that
    the stack starts anew, is stored with each frame: a lost life does not reset the stack.

    There is room for one truncation in 100 steps. With more, frames of the oldest transitions are
    overwritten earlier, and ``len`` is lower.

    Args:
        buffer_size: transitions of all environments together, at least one for each.
        n_actions: actions to choose from.
        n_envs: environments in lockstep.
        codec: how frames are stored.
        device: where everything is stored and sampled.
        seed: of the sampler; None takes one from the operating system.
        priorities: of prioritised replay; None samples uniformly.
        recorder: captures the writes of a step as one graph, if everything is stored on a GPU.
    """

    pos: int  # transitions of each environment so far, the time of the next one
    first: np.ndarray  # int64 (environments,), the time of each one's oldest transition still whole
    encoder_digest: str | None  # of the encoder of stored features; empty for pixels, None unknown
    sampler: Sampler  # chooses transitions
    needs_begin: bool  # whether :meth:`begin` must come before the next :meth:`add`

    def __init__(
        self,
        buffer_size: int,
        n_actions: int,
        n_envs: int,
        codec: FrameCodec,
        device: torch.device | str = "cpu",
        *,
        seed: int | None = None,
        priorities: Priorities | None = None,
        recorder: CudaRecorder | None = None,
    ) -> None:
        layout = replay_layout(buffer_size, n_actions, n_envs, codec)
        self.codec, self.n_envs, self.device = codec, n_envs, torch.device(device)
        # Steps of every environment, which is how stable-baselines3 counts a buffer's size.
        self.buffer_size = self.capacity = buffer_size // n_envs
        self._tensors = tensors = allocate(layout, self.device)
        self.ring = FrameRing(tensors["frames"], tensors["ages"], codec)
        self.numbers, self.actions = tensors["numbers"], tensors["actions"]
        self.rewards = tensors["rewards"]
        self.terminated, self.truncated = tensors["terminated"], tensors["truncated"]
        # The host needs them at every step, to see which observations can still be rebuilt.
        on_host = self.device.type == "cpu"
        self._host_numbers = (self.numbers if on_host else self.numbers.cpu()).numpy()
        self._envs = np.arange(n_envs)
        self.pos = 0
        self.encoder_digest = ""
        self.first = np.zeros(n_envs, dtype=np.int64)
        self._emptied = 0
        self.needs_begin = True
        self._bounds = torch.zeros(1 + n_envs, dtype=torch.int64, device=self.device)
        self._newest = torch.zeros(n_envs, dtype=torch.int64, device=self.device)
        self._packed = PackedUpload(step_fields(layout, n_envs, codec), self.device)
        self._write = Graphed(self._write_step, "replay", self.device, recorder)
        self.sampler = (
            UniformSampler(self.device, seed)
            if priorities is None
            else PrioritizedSampler(self.capacity, n_envs, self.device, seed, priorities)
        )

    def size(self) -> int:
        """Steps held of every environment, as stable-baselines3 counts them."""
        return int(self.pos - self.first.max())

    @property
    def full(self) -> bool:
        """Whether new transitions overwrite old ones."""
        return self.collected >= self.capacity

    @property
    def collected(self) -> int:
        """Transitions of each environment since the replay was empty."""
        return self.pos - self._emptied

    def reset(self) -> None:
        """Forgets all transitions; the next one follows from the newest observations."""
        self._emptied = self.pos
        self.first = np.full_like(self.first, self.pos)
        self._upload_bounds()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors on ``device``."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return int(self.n_envs * self.pos - self.first.sum())

    def check_encoder_digest(self, digest: str) -> None:
        """Refuses features of another encoder, by a UserError; ``digest`` is empty for pixels."""
        if self.pos and self.encoder_digest not in (None, digest):
            raise UserError(
                "the replay holds features of another encoder than the agent's, which is frozen:"
                " its weights were changed, or the replay is another agent's; begin with an empty"
                " one (replay_buffer = None)"
            )
        self.encoder_digest = digest

    def begin(self, observations: np.ndarray) -> None:
        """Starts with observations that do not follow from the last step, as after a reset.

        They are uint8 (environments, depth * channels, height, width). Episodes under way count as
        cut off at their last observation.
        """
        if self.pos:
            newest = (self.pos - 1) % self.capacity
            torch.logical_not(self.terminated[newest], out=self.truncated[newest])
        self.ring.push_stack(self.codec.encode_stacks(observations))
        self.needs_begin = False
        self._drop_overwritten()
        self._upload_bounds()

    def add(
        self,
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
        new_observations: np.ndarray,
    ) -> None:
        """Stores one step of every environment, from its newest observation.

        Where an environment is done, ``TimeLimit.truncated`` (with its ``terminal_observation``)
        and ``life_loss`` of its ``infos`` are read, and ``new_observations`` has the first of the
        new episode: uint8 (environments, depth * channels, height, width).
        """
        if not self.ring.pushed.all():
            raise RuntimeError("begin() must come before add(): no observations to act from yet")
        terminated, truncated, stack_reset = read_ends(dones, infos)
        row = self.pos % self.capacity
        numbers = self.ring.pushed - 1
        self._host_numbers[row] = numbers
        cut_off = np.flatnonzero(truncated)
        if len(cut_off):
            last = np.stack([infos[env]["terminal_observation"] for env in cut_off])
            self.ring.push(self.codec.encode_newest(last), stack_reset=False, envs=cut_off)
        frames = self.codec.encode_newest(new_observations)
        places, frames_in_stack = self.ring.allocate(stack_reset)
        self.pos += 1
        self._drop_overwritten()
        step = {
            "row": np.array([row]),
            "bounds": np.concatenate([[self.pos], self.first]),
            "newest": self.ring.pushed - 1,
            "places": places,
            "frames_in_stack": frames_in_stack,
            "numbers": numbers,
            "actions": actions,
            "rewards": rewards,
            "terminated": terminated,
            "truncated": truncated,
        }
        if isinstance(frames, torch.Tensor):
            self._write(self._packed.pack(step), upload(frames, self.device))
        else:
            self._write(self._packed.pack({**step, "frames": frames}))

    def _write_step(self, packed: torch.Tensor, features: torch.Tensor | None = None) -> None:
        """The part of :meth:`add` on ``device``, which is captured."""
        step = self._packed.unpack(packed)
        row = step["row"]
        for name in STEP_COLUMNS:
            self._tensors[name].index_copy_(0, row, step[name])
        frames = step["frames"] if features is None else features
        self.ring.write(step["places"], step["frames_in_stack"], frames)
        self.sampler.add(self._bounds, step["bounds"])
        self._bounds.copy_(step["bounds"])
        self._newest.copy_(step["newest"])

    @property
    def captured(self) -> bool:
        """Whether :meth:`add` has nothing left to capture."""
        return self._write.captured

    def newest_observations(self) -> torch.Tensor:
        """As stored, on ``device``: (environments, depth * channels, height, width)."""
        return self.ring.stack(self._newest, torch.arange(self.n_envs, device=self.device))

    def sample(self, batch_size: int, returns: NStepReturns | None = None) -> ReplayBatch:
        """A batch drawn by ``sampler``, on ``device``.

        ``returns`` sums rewards; by default rewards of one step, with discounts of 1, or 0 at an
        end. A UserError says that nothing is stored yet, or that ``batch_size`` is no whole number
        from 1.
        """
        check_count("batch_size", batch_size)
        if not len(self):
            raise UserError("there is no transition to sample yet: call learn() first")
        returns = returns or NStepReturns(1, gamma=1.0, device=self.device)
        times, envs, weights = self.sampler.sample(batch_size, self._bounds)
        return self.transitions(times, envs, returns, weights)

    def transitions(
        self,
        times: torch.Tensor,
        envs: torch.Tensor,
        returns: NStepReturns,
        weights: torch.Tensor | None = None,
    ) -> ReplayBatch:
        """The transitions of given times and environments, both int64 (batch,), on ``device``.

        ``weights``, float32 (batch,), are 1 by default.
        """
        newest = self._bounds[0] - 1
        window = torch.minimum(times[:, None] + returns.steps, newest)
        places = window % self.capacity * self.n_envs + envs[:, None]
        terminated = self.terminated.view(-1)[places]
        ended = terminated | self.truncated.view(-1)[places] | (window == newest)
        rewards, discounts, last = returns(self.rewards.view(-1)[places], terminated, ended)

        numbers = self.numbers.view(-1)
        start, end = places[:, 0], places.gather(1, last[:, None]).squeeze(1)
        both = torch.cat([numbers[start], numbers[end] + 1])
        observations, next_observations = self.ring.stack(both, envs.repeat(2)).chunk(2)
        actions = self.actions.view(-1)[start].long()
        if weights is None:
            weights = torch.ones_like(rewards)
        return ReplayBatch(
            observations,
            actions,
            rewards,
            next_observations,
            discounts,
            weights,
            times * self.n_envs + envs,
        )

    def set_priorities(self, places: torch.Tensor, priorities: torch.Tensor) -> None:
        """Gives the transitions of a batch new priorities, float32 (batch,), from 0."""
        self.sampler.set_priorities(places, priorities, self._bounds)

    def save(self, path: str | Path) -> None:
        """Writes all that is filled to a safetensors file, whole or not at all."""
        steps = min(self.capacity, self.pos)
        rows = dict.fromkeys(STEP_COLUMNS, steps)
        frame_rows = min(self.ring.rows, int(self.ring.pushed.max()))
        tensors = {name: t[: rows.get(name, frame_rows)] for name, t in self._tensors.items()}
        tensors |= self.sampler.state(steps)
        tensors["pushed"] = torch.from_numpy(self.ring.pushed)
        tensors["first"] = torch.from_numpy(self.first)
        tensors["generator"] = self.sampler.generator.get_state()
        counts = {"pos": str(self.pos), "emptied": str(self._emptied)}
        metadata = {**self._geometry(), **counts, "made_by": self.encoder_digest or ""}
        write_snapshot(path, tensors, metadata)

    def load(self, path: str | Path) -> None:
        """Reads what :meth:`save` wrote, bit for bit, with the sampler's state.

        A snapshot from another kind of device has another kind of generator: its state then seeds
        the sampler. A UserError refuses a file that is missing, broken, or from a replay of other
        arguments; the replay then stays as it was.
        """
        with reading_snapshot(path, self._geometry()) as (file, metadata):
            # All is looked up before anything changes: a broken file leaves the replay as it was.
            slices = {name: file.get_slice(name) for name in self._tensors}
            pushed = file.get_tensor("pushed").numpy().copy()
            first, generator = file.get_tensor("first").numpy().copy(), file.get_tensor("generator")
            pos, emptied = int(metadata["pos"]), int(metadata.get("emptied", 0))
            names = self.sampler.state(0).keys()
            # An older file has none of them, and neither has one of a uniform sampler.
            absent = names.isdisjoint(file.keys())
            sampling = {} if absent else {name: file.get_tensor(name) for name in names}
            for name, tensor in self._tensors.items():
                copy_rows(slices[name], tensor)
        self.pos, self._emptied, self.first = pos, emptied, first
        self.encoder_digest = metadata.get("made_by")
        self.ring.restore(pushed)
        restore_generator(self.sampler.generator, generator)
        self.needs_begin = True
        if self.device.type != "cpu":
            self._host_numbers[:] = self.numbers.cpu().numpy()
        self._upload_bounds()
        self.sampler.load_state(sampling, self._bounds)

    def check_valid(self) -> None:
        """Raises AssertionError where the storage contradicts itself; for tests, slow."""
        self.ring.check_valid()
        self.sampler.check_valid(self._bounds)
        assert (self.first >= max(0, self.pos - self.capacity)).all()
        assert (self.first <= self.pos).all()
        assert self._bounds.tolist() == [self.pos, *self.first]
        assert self._newest.tolist() == (self.ring.pushed - 1).tolist()
        columns = (self.numbers, self.terminated, self.truncated)
        numbers, terminated, truncated = (column.cpu().numpy() for column in columns)
        assert not (terminated & truncated).any()
        assert (numbers == self._host_numbers).all()
        for env, (first, pushed) in enumerate(zip(self.first, self.ring.pushed, strict=True)):
            rows = np.arange(first, self.pos) % self.capacity
            held = numbers[rows, env]
            oldest_frame = pushed - self.ring.rows + self.ring.stacking.depth - 1
            assert not len(held) or held[0] >= oldest_frame
            steps = np.diff(held, append=pushed - 1)
            cut_off, ended = truncated[rows, env], (terminated | truncated)[rows, env]
            assert (steps[cut_off] > 1).all(), f"environment {env}: a truncation without its frame"
            assert (steps[~ended] == 1).all(), f"environment {env}: frames between two steps"
            assert (steps >= 1).all()

    def _drop_overwritten(self) -> None:
        self.first = np.maximum(self.first, self.pos - self.capacity)
        while True:
            oldest = self._host_numbers[self.first % self.capacity, self._envs]
            lost = (self.first < self.pos) & ~self.ring.holds(oldest)
            if not lost.any():
                return
            self.first += lost

    def _upload_bounds(self) -> None:
        self._bounds.copy_(upload(np.concatenate([[self.pos], self.first]), self.device))
        self._newest.copy_(upload(self.ring.pushed - 1, self.device))
        self.sampler.restrict(self._bounds)

    def _geometry(self) -> dict[str, str]:
        tensors = {name: list(tensor.shape) for name, tensor in self._tensors.items()}
        return {
            "format": _FORMAT,
            "shapes": json.dumps(tensors),
            "depth": str(self.codec.frame_stacking.depth),
            "padding": self.codec.frame_stacking.padding,
            "stored": f"{self.codec.stacking.depth} of {self.codec.dtype}",
        }
