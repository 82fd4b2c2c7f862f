"""On-policy storage: one uint8 frame per step, on the device that trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from agents.sb3.arguments import check_count
from agents.storage.codecs import FrameCodec
from agents.storage.stacking import stack_frames
from envs.errors import UserError
from rlcnn.accelerate.transfers import upload


class RolloutBatch(NamedTuple):
    """Transitions of a rollout, in stable-baselines3's terms; float32 but for the first two."""

    observations: torch.Tensor  # (batch, depth * channels, height, width), as stored
    actions: torch.Tensor  # int64 (batch,)
    old_values: torch.Tensor  # (batch,)
    old_log_prob: torch.Tensor  # (batch,)
    advantages: torch.Tensor  # (batch,)
    returns: torch.Tensor  # (batch,)


class FrameRollout:
    """Steps of ``n_envs`` environments in lockstep, whose observations share their frames.

    The rows before that of the first step hold the older frames of its stack, so that every
    observation of the rollout is rebuilt bit-equal to the environment's own. The rollout lives on
    ``device``, normally where it is learned from. ``gae_lambda`` is the lambda of generalised
    advantage estimation, ``gamma`` the discount factor, both 0 to 1.
    """

    def __init__(
        self,
        buffer_size: int,
        n_envs: int,
        codec: FrameCodec,
        device: torch.device | str = "cpu",
        *,
        gae_lambda: float = 1.0,
        gamma: float = 0.99,
    ) -> None:
        self.buffer_size, self.n_envs, self.codec = buffer_size, n_envs, codec
        self.gae_lambda, self.gamma = gae_lambda, gamma
        self.device = torch.device(device)
        rows = buffer_size + codec.stacking.depth - 1
        self.frames = torch.zeros(
            (rows, n_envs, *codec.shape), dtype=codec.dtype, device=self.device
        )
        self.frames_in_stack = torch.zeros((rows, n_envs), dtype=torch.uint8, device=self.device)
        self.actions = self._per_step(torch.int64)
        self.rewards, self.episode_starts = self._per_step(), self._per_step()
        self.values, self.log_probs = self._per_step(), self._per_step()
        self.advantages, self.returns = self._per_step(), self._per_step()
        # Filled on the host step by step, and uploaded when the rollout is full.
        self._host = {
            name: _on_host(getattr(self, name))
            for name in ("frames_in_stack", "rewards", "episode_starts")
        }
        self.pos = 0

    def _per_step(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros((self.buffer_size, self.n_envs), dtype=dtype, device=self.device)

    @property
    def full(self) -> bool:
        """Whether every step has been added."""
        return self.pos == self.buffer_size

    def size(self) -> int:
        """Steps of each environment that have been added."""
        return self.pos

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        held = (value for value in vars(self).values() if isinstance(value, torch.Tensor))
        return sum(tensor.nbytes for tensor in held)

    def reset(self) -> None:
        """Forgets all steps; the next one is stored with its whole stack."""
        self.pos = 0

    def add_decision(
        self,
        observations: torch.Tensor,
        stack_reset: np.ndarray,
        actions: torch.Tensor,
        values: torch.Tensor,
        log_probs: torch.Tensor,
        envs: slice = slice(None),
    ) -> None:
        """Stores observations and the actions taken on them, while the environments step.

        Args:
            observations: (environments, depth * channels, height, width), as encoded.
            stack_reset: bool (environments,), whether the stack started anew with this observation.
            actions: int64 (environments,).
            values: float32 (environments,) or (environments, 1).
            log_probs: float32 (environments,).
            envs: which of all environments these are.
        """
        depth, channels = self.codec.stacking.depth, self.codec.shape[0]
        row = self.pos + depth - 1
        frames_in_stack = self._host["frames_in_stack"].numpy()
        if self.pos == 0:
            stack = observations.unflatten(1, (depth, channels))
            self.frames[:depth, envs].copy_(stack.transpose(0, 1))
            # The rows below hold this stack's padding, too.
            frames_in_stack[row, envs] = depth - 1
        else:
            self.frames[row, envs].copy_(observations[:, -channels:])
            older = np.minimum(frames_in_stack[row - 1, envs] + 1, depth - 1)
            frames_in_stack[row, envs] = np.where(stack_reset, 0, older)
        self.actions[self.pos, envs] = actions
        self.values[self.pos, envs] = values.flatten()
        self.log_probs[self.pos, envs] = log_probs

    def add(self, rewards: np.ndarray, episode_starts: np.ndarray) -> None:
        """Completes the step; after the last one, everything is on the device.

        ``rewards`` are float32 (environments,). ``episode_starts``, bool (environments,), says
        whether the step before was the last of an episode, so that no value is carried back over
        it. A lost life sets this, but not ``stack_reset``.
        """
        self._host["rewards"].numpy()[self.pos] = rewards
        self._host["episode_starts"].numpy()[self.pos] = episode_starts
        self.pos += 1
        if self.full:
            for name, host in self._host.items():
                device = getattr(self, name)
                if host is not device:
                    device.copy_(host, non_blocking=True)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Generalised advantage estimation (Schulman et al. 2016, equation 16).

        Advantages plus values are the lambda returns, backwards from the last step: ``r[t] + gamma
        * (1 - d[t]) * (gae_lambda * G[t + 1] + (1 - gae_lambda) * V[t + 1])``. With the greatest Q
        values as values they are the targets of Q(lambda).

        ``last_values``, float32 (environments,) or (environments, 1), are those of the observations
        after the last step; ``dones``, bool (environments,), says whether it ended an episode.
        """
        ends = torch.cat([self.episode_starts[1:], upload(dones, self.device).float()[None]])
        next_values = torch.cat([self.values[1:], last_values.flatten()[None]])
        discounts = self.gamma * (1.0 - ends)
        deltas = self.rewards + discounts * next_values - self.values
        self.advantages.copy_(reverse_discounted_sums(deltas, self.gae_lambda * discounts))
        torch.add(self.advantages, self.values, out=self.returns)

    def observations(self, indices: torch.Tensor) -> torch.Tensor:
        """Observations (batch, depth * channels, height, width) of flat step indices."""
        stacking, blank = self.codec.stacking, self.codec.blank
        rows, columns = indices // self.n_envs + stacking.depth - 1, indices % self.n_envs
        return stack_frames(self.frames, self.frames_in_stack, rows, columns, stacking, blank)

    @property
    def newest_frames(self) -> torch.Tensor:
        """The newest frame of every observation, (steps * environments, *codec.shape)."""
        return self.frames[self.codec.stacking.depth - 1 :].flatten(0, 1)

    def batch(self, indices: torch.Tensor) -> RolloutBatch:
        """The transitions at flat indices ``step * n_envs + environment``, int64 (batch,)."""
        columns = (self.actions, self.values, self.log_probs, self.advantages, self.returns)
        taken = (column.flatten()[indices] for column in columns)
        return RolloutBatch(self.observations(indices), *taken)

    def get(self, batch_size: int | None = None) -> Iterator[RolloutBatch]:
        """Every transition once, shuffled by numpy's global generator, in batches.

        The last batch may be smaller than ``batch_size``, a whole number from 1; None takes all at
        once. A UserError says that not every step has been added.
        """
        if batch_size is not None:
            check_count("batch_size", batch_size)
        if not self.full:
            raise UserError(
                f"the rollout holds {self.pos} of {self.buffer_size} steps: call learn() first"
            )
        shuffled = np.random.permutation(self.buffer_size * self.n_envs)
        indices = torch.as_tensor(shuffled, device=self.device)
        return map(self.batch, indices.split(int(batch_size or len(indices))))


def reverse_discounted_sums(deltas: torch.Tensor, discounts: torch.Tensor) -> torch.Tensor:
    """Sums ``s[t] = deltas[t] + discounts[t] * s[t + 1]``, from the last delta backwards.

    Doubles the length of the sums in each pass (Hillis & Steele 1986, "Data parallel algorithms"),
    so that a GPU runs a few dozen kernels rather than some for every step.

    All are float32 (steps, environments); the last row of ``discounts`` is not used.
    """
    sums, products = deltas.clone(), discounts.clone()
    length = 1
    while length < len(deltas):
        sums[:-length] += products[:-length] * sums[length:]
        products[:-length] *= products[length:].clone()
        length *= 2
    return sums


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` itself if it is on the host, else pinned memory of its shape."""
    if tensor.device.type == "cpu":
        return tensor
    return torch.zeros_like(tensor, device="cpu").pin_memory()
