"""Off-policy storage: one uint8 frame per step, on the training device or on the host.

Three parts make a batch: :class:`FrameReplay` stores transitions and frames apart, a
:class:`~agents.storage.samplers.UniformSampler` chooses transitions, and
:class:`~agents.storage.samplers.NStepReturns` sums their rewards.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from agents.sb3.algorithm import check_stacking
from agents.sb3.arguments import check_count
from agents.storage.frame_ring import FrameRing
from agents.storage.items import Pixels, Stored
from agents.storage.samplers import NStepReturns, UniformSampler
from envs.errors import UserError
from envs.stacking import FrameStacking
from rlcnn.accelerate.cuda_graphs import Graphed, Recorder
from rlcnn.accelerate.transfers import PackedUpload, upload

Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]

_FORMAT = "rlcnn replay 1"
_COPIED_ROWS = 1024


class ReplayBatch(NamedTuple):
    """What a Q update learns from."""

    observations: torch.Tensor  # (batch, depth * channels, height, width), as stored
    actions: torch.Tensor  # int64 (batch,)
    rewards: torch.Tensor  # float32 (batch,), the n-step return without its bootstrap
    next_observations: torch.Tensor  # as observations: those at the windows' ends
    discounts: torch.Tensor  # float32 (batch,), of the bootstrap; 0 where nothing is beyond

    def to(self, device: torch.device) -> ReplayBatch:
        """The same batch on ``device``."""
        return ReplayBatch(*(upload(tensor, device) for tensor in self))


class FrameReplay:
    """The last ``buffer_size`` transitions of environments in lockstep, one frame stored for each.

    A transition names the number of its observation's newest frame; the next observation is that
    of the frame after it. Two bits say different things: ``terminated``, that nothing beyond is
    worth anything (a real end or a lost life), and ``truncated``, that the episode was cut off but
    would have gone on: its last frame has a place of its own, between the two episodes' others. A
    third, that the stack starts anew, is the age stored with each frame: a lost life leaves it.

    There is room for one truncation in 100 steps. Where there are more, the frames of the oldest
    transitions are overwritten earlier, and ``len`` counts those few transitions less.

    Attributes:
        pos: transitions each environment has given so far, the time of the next one.
        first: int64 numpy (environments,), the time of each one's oldest transition still whole.
        made_by: what tells which encoder made the features that are stored; empty for pixels, None
            where a snapshot did not say.

    Args:
        buffer_size: transitions of all environments together.
        observation_space: uint8 (depth * channels, height, width).
        action_space: Discrete.
        device: where everything is stored, and sampled from.
        n_envs: environments in lockstep.
        stacking: how the environment makes an observation of frames.
        stored: what is stored of them; by default their pixels.
        seed: of the sampler; None takes one from the operating system.
        recorder: captures the writes of a step as one graph, where everything is stored on a GPU.

    Raises:
        UserError: ``buffer_size`` is below ``n_envs``, or ``stacking`` does not make such
            observations.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        device: torch.device | str = "cpu",
        n_envs: int = 1,
        *,
        stacking: FrameStacking,
        stored: Stored | None = None,
        seed: int | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.stored = stored or _pixels(observation_space, stacking)
        layout = _layout(buffer_size, action_space, n_envs, self.stored)
        self.device = torch.device(device)
        self.n_envs, self.stacking = n_envs, stacking
        self.capacity = buffer_size // n_envs
        tensors = {name: _zeros(*entry, self.device) for name, entry in layout.items()}
        self.ring = FrameRing(tensors["frames"], tensors["ages"], self.stored)
        self.numbers, self.actions = tensors["numbers"], tensors["actions"]
        self.rewards = tensors["rewards"]
        self.terminated, self.truncated = tensors["terminated"], tensors["truncated"]
        # The host asks in every step which observations can still be rebuilt.
        on_host = self.device.type == "cpu"
        self._host_numbers = (self.numbers if on_host else self.numbers.cpu()).numpy()
        self._envs = np.arange(n_envs)
        self.pos = 0
        self.made_by: str | None = ""
        self.first = np.zeros(n_envs, dtype=np.int64)
        self._emptied = 0
        self._bounds = torch.zeros(1 + n_envs, dtype=torch.int64, device=self.device)
        self._newest = torch.zeros(n_envs, dtype=torch.int64, device=self.device)
        self._packed = PackedUpload(self._fields_of_step(layout), self.device)
        self._write = Graphed(self._write_step, "replay", self.device, recorder)
        self.sampler = UniformSampler(self.device, seed)

    def _fields_of_step(self, layout: Layout) -> Layout:
        """What the host knows of a step, and what :meth:`_write_step` takes."""
        columns = ("numbers", "actions", "rewards", "terminated", "truncated")
        per_env: Layout = {name: ((1, self.n_envs), layout[name][1]) for name in columns}
        fields: Layout = {
            "row": ((1,), torch.int64),
            "bounds": ((1 + self.n_envs,), torch.int64),
            "newest": ((self.n_envs,), torch.int64),
            "places": ((self.n_envs,), torch.int64),
            "ages": ((self.n_envs,), torch.uint8),
            **per_env,
        }
        if isinstance(self.stored, Pixels):
            # A frozen encoder's features lie on its device already.
            fields["frames"] = ((self.n_envs, *self.stored.shape), self.stored.dtype)
        return fields

    @staticmethod
    def memory_needed(
        buffer_size: int,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        n_envs: int,
        stacking: FrameStacking,
        stored: Stored | None = None,
    ) -> int:
        """Bytes a replay of these arguments will hold; a snapshot takes no more on disk."""
        stored = stored or _pixels(observation_space, stacking)
        layout = _layout(buffer_size, action_space, n_envs, stored)
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())

    def size(self) -> int:
        """Steps that are held of every environment, as stable-baselines3 counts them."""
        return int(self.pos - self.first.max())

    @property
    def buffer_size(self) -> int:
        """Steps of every environment that there is room for, as stable-baselines3 counts them."""
        return self.capacity

    @property
    def full(self) -> bool:
        """Whether new transitions take the place of old ones."""
        return self.collected >= self.capacity

    @property
    def collected(self) -> int:
        """Transitions each environment has given since the replay was empty."""
        return self.pos - self._emptied

    def reset(self) -> None:
        """Forgets all transitions; the next one follows from the newest observations."""
        self._emptied = self.pos
        self.first = np.full_like(self.first, self.pos)
        self._upload_bounds()

    @property
    def nbytes(self) -> int:
        """Bytes held on ``device``, frames and everything else."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return int(self.n_envs * self.pos - self.first.sum())

    def claim(self, made_by: str) -> None:
        """Takes note of the frozen encoder that features are made by from now on.

        Args:
            made_by: what tells it from others, its weights included; empty for pixels.

        Raises:
            UserError: another one made those that are stored.
        """
        if self.pos and self.made_by not in (None, made_by):
            raise UserError(
                "the replay holds features of another encoder than the agent's, which is frozen:"
                " its weights were changed, or the replay is another agent's; begin with an empty"
                " one (replay_buffer = None)"
            )
        self.made_by = made_by

    def begin(self, observations: np.ndarray) -> None:
        """Starts with observations that do not follow from the last step, as after a reset.

        Whatever was under way counts as cut off at its last observation.

        Args:
            observations: uint8 (environments, depth * channels, height, width).
        """
        if self.pos:
            newest = (self.pos - 1) % self.capacity
            torch.logical_not(self.terminated[newest], out=self.truncated[newest])
        self.ring.push_stack(self.stored.stacks(observations))
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
        """Stores one step of every environment, taken from the observations it stood at.

        Args:
            actions: integers (environments,).
            rewards: (environments,).
            dones: bool (environments,).
            infos: of each environment; where done, ``TimeLimit.truncated`` (with its
                ``terminal_observation``) and ``life_loss`` are read.
            new_observations: uint8 (environments, depth * channels, height, width), those of new
                episodes where done.
        """
        if not self.ring.pushed.all():
            raise RuntimeError("begin() must come before add(): no observations to act from yet")
        terminated, truncated, fresh = _read_ends(dones, infos)
        row = self.pos % self.capacity
        numbers = self.ring.pushed - 1
        self._host_numbers[row] = numbers
        cut_off = np.flatnonzero(truncated)
        if len(cut_off):
            last = np.stack([infos[env]["terminal_observation"] for env in cut_off])
            self.ring.push(self.stored.newest(last), fresh=False, envs=cut_off)
        frames = self.stored.newest(new_observations)
        places, ages = self.ring.allocate(fresh)
        self.pos += 1
        self._drop_overwritten()
        step = {
            "row": np.array([row]),
            "bounds": self._host_bounds(),
            "newest": self.ring.pushed - 1,
            "places": places,
            "ages": ages,
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
        """Writes a step that lies on ``device``: the part of :meth:`add` that is captured."""
        step = self._packed.unpack(packed)
        row = step["row"]
        self.numbers.index_copy_(0, row, step["numbers"])
        self.actions.index_copy_(0, row, step["actions"])
        self.rewards.index_copy_(0, row, step["rewards"])
        self.terminated.index_copy_(0, row, step["terminated"])
        self.truncated.index_copy_(0, row, step["truncated"])
        self.ring.write(
            step["places"], step["ages"], step["frames"] if features is None else features
        )
        self._bounds.copy_(step["bounds"])
        self._newest.copy_(step["newest"])

    @property
    def captured(self) -> bool:
        """Whether :meth:`add` captures nothing any more."""
        return self._write.captured

    def newest_observations(self) -> torch.Tensor:
        """The newest observation of every environment, as stored, on ``device``.

        Returns:
            (environments, depth * channels, height, width).
        """
        return self.ring.stack(self._newest, torch.arange(self.n_envs, device=self.device))

    def sample(self, batch_size: int, returns: NStepReturns | None = None) -> ReplayBatch:
        """A batch drawn by ``sampler``, on ``device``.

        Args:
            batch_size: transitions.
            returns: sums rewards; by default they are those of one step, as stored, and discounts
                are 1, or 0 where nothing is beyond.

        Raises:
            UserError: nothing is stored yet, or ``batch_size`` is no whole number from 1.
        """
        check_count("batch_size", batch_size)
        if not len(self):
            raise UserError("there is no transition to sample yet: call learn() first")
        returns = returns or NStepReturns(1, gamma=1.0, device=self.device)
        return self.transitions(*self.sampler.draw(batch_size, self._bounds), returns)

    def transitions(
        self, times: torch.Tensor, envs: torch.Tensor, returns: NStepReturns
    ) -> ReplayBatch:
        """The transitions of given times and environments, both int64 (batch,), on ``device``."""
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
        return ReplayBatch(observations, actions, rewards, next_observations, discounts)

    def save(self, path: str | Path) -> None:
        """Writes everything to a safetensors file, whole or not at all; only what is filled.

        Raises:
            UserError: it cannot be written.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        tensors = {name: t[: self._filled(name)] for name, t in self._tensors().items()}
        tensors["pushed"] = torch.from_numpy(self.ring.pushed)
        tensors["first"] = torch.from_numpy(self.first)
        tensors["generator"] = self.sampler.generator.get_state()
        try:
            save_file(tensors, temporary, metadata=self._metadata())
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise UserError(f"cannot write the replay snapshot {path}: {error}") from error

    def load(self, path: str | Path) -> None:
        """Reads what ``save`` wrote, bit for bit, the sampler's state included.

        A snapshot from another kind of device has a generator of another kind: the sampler then
        goes on from a seed made of it.

        Raises:
            UserError: the file is missing, broken, or of a replay of other arguments.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                self._check_geometry(metadata, path)
                self.pos, self.made_by = int(metadata["pos"]), metadata.get("made_by")
                self._emptied = int(metadata.get("emptied", 0))
                for name, tensor in self._tensors().items():
                    source = file.get_slice(name)
                    for row in range(0, source.get_shape()[0], _COPIED_ROWS):
                        rows = source[row : row + _COPIED_ROWS]
                        tensor[row : row + len(rows)].copy_(rows)
                self.ring.restore(file.get_tensor("pushed").numpy().copy())
                self.first = file.get_tensor("first").numpy().copy()
                self._restore_generator(file.get_tensor("generator"))
        except (OSError, SafetensorError, KeyError) as error:
            if not _is_safetensors(path):
                raise UserError(
                    f"{path} is no replay that save_replay_buffer of an agent here wrote;"
                    " stable-baselines3's own replays, which are pickles, cannot be read"
                ) from error
            raise UserError(f"cannot read the replay snapshot {path}: {error}") from error
        if self.device.type != "cpu":
            self._host_numbers[:] = self.numbers.cpu().numpy()
        self._upload_bounds()

    def check_valid(self) -> None:
        """Raises AssertionError where the storage contradicts itself; for tests, slow."""
        self.ring.check_valid()
        oldest = max(0, self.pos - self.capacity)
        assert (oldest <= self.first).all()
        assert (self.first <= self.pos).all()
        assert self._bounds.tolist() == [self.pos, *self.first]
        assert self._newest.tolist() == (self.ring.pushed - 1).tolist()
        numbers, terminated, truncated = (
            tensor.cpu().numpy() for tensor in (self.numbers, self.terminated, self.truncated)
        )
        assert not (terminated & truncated).any()
        assert (numbers == self._host_numbers).all()
        for env, (first, pushed) in enumerate(zip(self.first, self.ring.pushed, strict=True)):
            rows = np.arange(first, self.pos) % self.capacity
            held = numbers[rows, env]
            assert (
                not len(held) or held[0] - (self.ring.stacking.depth - 1) >= pushed - self.ring.rows
            )
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
                break
            self.first += lost

    def _host_bounds(self) -> np.ndarray:
        return np.concatenate([[self.pos], self.first])

    def _upload_bounds(self) -> None:
        self._bounds.copy_(upload(self._host_bounds(), self.device))
        self._newest.copy_(upload(self.ring.pushed - 1, self.device))

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            "frames": self.ring.frames,
            "ages": self.ring.ages,
            "numbers": self.numbers,
            "actions": self.actions,
            "rewards": self.rewards,
            "terminated": self.terminated,
            "truncated": self.truncated,
        }

    def _filled(self, name: str) -> int:
        if name in ("frames", "ages"):
            return min(self.ring.rows, int(self.ring.pushed.max()))
        return min(self.capacity, self.pos)

    def _metadata(self) -> dict[str, str]:
        counts = {"pos": str(self.pos), "emptied": str(self._emptied)}
        return {**self._geometry(), **counts, "made_by": self.made_by or ""}

    def _geometry(self) -> dict[str, str]:
        tensors = {name: list(tensor.shape) for name, tensor in self._tensors().items()}
        return {
            "format": _FORMAT,
            "shapes": json.dumps(tensors),
            "depth": str(self.stacking.depth),
            "padding": self.stacking.padding,
            "stored": f"{self.stored.stacking.depth} of {self.stored.dtype}",
        }

    def _check_geometry(self, metadata: dict[str, str], path: str | Path) -> None:
        for key, expected in self._geometry().items():
            if metadata.get(key) != expected:
                raise UserError(
                    f"the replay snapshot {path} does not fit: its {key} is"
                    f" {metadata.get(key, 'missing')}, this replay's {expected}"
                )

    def _restore_generator(self, state: torch.Tensor) -> None:
        if state.shape == self.sampler.generator.get_state().shape:
            self.sampler.generator.set_state(state)
        else:
            self.sampler.generator.manual_seed(int.from_bytes(state[:8].tolist(), "little") >> 1)


def _is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as safetensors do, with a length and a dict; True where none is."""
    if not os.path.isfile(path):
        return True
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _pixels(observation_space: spaces.Box, stacking: FrameStacking) -> Pixels:
    check_stacking(observation_space, stacking)
    return Pixels(stacking, observation_space.shape)


def _layout(buffer_size: int, action_space: spaces.Discrete, n_envs: int, stored: Stored) -> Layout:
    """Shapes and dtypes of everything a replay stores."""
    if buffer_size < n_envs:
        raise UserError(
            f"buffer_size {buffer_size} has no room for a transition of each of {n_envs}"
            f" environments: it must be at least {n_envs}"
        )
    capacity = buffer_size // n_envs
    frame_rows = capacity + capacity // 100 + 2 * stored.stacking.depth
    steps = (capacity, n_envs)
    return {
        "frames": ((frame_rows, n_envs, *stored.shape), stored.dtype),
        "ages": ((frame_rows, n_envs), torch.uint8),
        "numbers": (steps, torch.int64),
        "actions": (steps, torch.uint8 if action_space.n <= 256 else torch.int64),
        "rewards": (steps, torch.float32),
        "terminated": (steps, torch.bool),
        "truncated": (steps, torch.bool),
    }


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        # numpy's zeros come from untouched pages: memory is used as the replay fills. As bytes,
        # since it has no bfloat16.
        zeros = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
        return torch.from_numpy(zeros).view(dtype).view(shape)
    return torch.zeros(shape, dtype=dtype, device=device)


def _read_ends(
    dones: np.ndarray, infos: list[dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which environments terminated, which were truncated, and whose stack starts anew; bool."""
    terminated, truncated, fresh = dones.copy(), np.zeros_like(dones), dones.copy()
    for env in np.flatnonzero(dones):
        truncated[env] = infos[env].get("TimeLimit.truncated", False)
        terminated[env] = not truncated[env]
        fresh[env] = not infos[env].get("life_loss", False)
    return terminated, truncated, fresh
