"""Actors for rollouts: they hold the current observations of environments and act on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from agents.storage.codecs import FrameCodec, PixelCodec
from agents.storage.stacking import push_frames
from rlcnn.accelerate.cuda_graphs import (
    CudaRecorder,
    Graphed,
    make_recorder,
    parameters_and_buffers,
)
from rlcnn.accelerate.transfers import Readback, host_tensor, pinned, upload

# Additions and multiplications of one step of acting that are worth one more CPU thread.
_WORK_OF_A_THREAD = 6e8


Draw = Callable[[int], np.ndarray]
"""Number of environments -> actions int64 to take in place of the policy's; -1 for none."""


class ActingPolicy(Protocol):
    """Chooses actions and values: :class:`~agents.networks.policies.PixelActorCriticPolicy`."""

    def __call__(
        self, obs: torch.Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions int64 (batch,), values float32 (batch,) or (batch, 1), and log probabilities."""

    def predict_values(self, obs: Any) -> torch.Tensor:
        """Values, float32 (batch, 1)."""


class RolloutActor:
    """Chooses actions for environments in lockstep: :meth:`act`, then :meth:`observe` the result.

    The policy is in evaluation mode, on ``device``, where the tensors here lie. Those of the last
    :meth:`act` are valid until the next :meth:`observe`. ``draw`` chooses some actions in place of
    the policy; it is called on the host, once for each choice.
    """

    observations: torch.Tensor  # the current ones, as ``codec`` encodes them
    actions: torch.Tensor  # int64 (environments,)
    values: torch.Tensor  # float32 (environments,), perhaps (environments, 1)
    log_probs: torch.Tensor  # float32 (environments,)

    def __init__(
        self,
        policy: ActingPolicy,
        codec: FrameCodec,
        device: torch.device,
        draw: Draw | None = None,
    ) -> None:
        self.policy, self._codec, self._device, self._draw = policy, codec, device, draw
        self._last_observations: np.ndarray | None = None

    @property
    def ready(self) -> bool:
        """Whether nothing is left to capture as a graph."""
        return True

    @property
    def threads(self) -> int:
        """CPU threads worth using, at most torch's; valid after a :meth:`reset`.

        All threads for a frozen encoder, which sees each frame. Otherwise fewer are faster for
        little work: torch's threads wait for each other after every layer, by spinning, while
        emulators need the same cores.
        """
        usable = torch.get_num_threads()
        pixels = isinstance(self._codec, PixelCodec)
        return min(usable, self._worthwhile_threads) if pixels else usable

    @cached_property
    def _worthwhile_threads(self) -> int:
        # Work is counted, not timed, so that the result is the same in every run.
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.policy.predict_values(self.observations)
        return max(1, math.ceil(counter.get_total_flops() / _WORK_OF_A_THREAD))

    def reset(self, observations: np.ndarray) -> None:
        """Starts from observations that need not follow from the previous step.

        Also to be called after the policy has learned. Observations are uint8 (environments,
        depth * channels, height, width); the very array of the previous call is not brought to the
        device again.
        """
        if observations is not self._last_observations:
            self._take(observations, self._codec.encode_stacks(observations))

    @torch.no_grad()
    def act(self) -> np.ndarray:
        """Actions int64 (environments,), drawn from the policy."""
        drawn = (upload(actions, self._device) for actions in self._drawn())
        self.actions, self.values, self.log_probs = self._decide(*drawn)
        return self.actions.cpu().numpy()

    def observe(self, observations: np.ndarray, stack_reset: np.ndarray) -> None:
        """Takes the observations after one step, which began the stacks of ``stack_reset`` anew.

        ``stack_reset`` is bool (environments,).
        """
        if isinstance(self._codec, PixelCodec):
            self._take(observations, observations)
        else:
            newest = self._codec.encode_newest(observations)
            reset = upload(stack_reset, self._device)
            self._take(observations, self._pushed(self.observations, newest, reset))

    @torch.no_grad()
    def current_values(self) -> torch.Tensor:
        """Values of the current observations, float32 (environments,) or (.., 1)."""
        return self.policy.predict_values(self.observations)

    @torch.no_grad()
    def truncation_values(self, observations: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """Values, float32 (some environments,), of observations that a time limit cut off.

        They are uint8 (some environments, depth * channels, height, width), one step after the
        current ones: to be called before :meth:`observe`. ``envs``, int64, says which they are.
        """
        if isinstance(self._codec, PixelCodec):
            stacks = upload(observations, self._device)
        else:
            newest = self._codec.encode_newest(observations)
            go_on = torch.zeros(len(envs), dtype=torch.bool, device=self._device)
            before = self.observations[upload(envs, self._device)]
            stacks = self._pushed(before, newest, go_on)
        return self.policy.predict_values(stacks).flatten().cpu().numpy()

    def _drawn(self) -> list[np.ndarray]:
        """The actions that replace the policy's, in a list; an empty one without ``draw``."""
        return [] if self._draw is None else [self._draw(len(self.observations))]

    def _decide(
        self, *drawn: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        actions, values, log_probs = self.policy(self.observations, generator=generator)
        for replacing in drawn:
            actions = torch.where(replacing >= 0, replacing, actions)
        return actions, values, log_probs

    def _take(self, observations: np.ndarray, stacks: np.ndarray | torch.Tensor) -> None:
        self._last_observations = observations
        self.observations = host_tensor(stacks).to(self._device)

    def _pushed(
        self, stacks: torch.Tensor, newest: torch.Tensor, stack_reset: torch.Tensor
    ) -> torch.Tensor:
        codec = self._codec
        return push_frames(stacks, newest, stack_reset, codec.stacking, codec.blank)


class CudaRolloutActor(RolloutActor):
    """An actor for a GPU: the host waits for it once a step, and as late as possible.

    Only the newest frames go to the GPU, through pinned memory; the stacks stay there. An
    :meth:`observe` starts the policy at once, all of it as one graph, and the host goes on until it
    needs the actions.

    Actions are drawn from the actor's own generator, seeded from torch's CPU generator at every
    :meth:`reset`: every graph's replay, also of an update in another thread, moves the offset of
    torch's CUDA generator that graphs read.

    ``recorder`` captures an :meth:`observe`; None does not capture. ``draw`` is called when the
    policy is: at each :meth:`reset` and :meth:`observe`.
    """

    def __init__(
        self,
        policy: ActingPolicy,
        codec: FrameCodec,
        device: torch.device,
        recorder: CudaRecorder | None,
        draw: Draw | None = None,
    ) -> None:
        super().__init__(policy, codec, device, draw)
        self._generator = torch.Generator(device)
        self._readback = Readback(device)
        self.observations = torch.empty(0, device=device)
        assert isinstance(policy, nn.Module)
        network = parameters_and_buffers(policy)
        self._step = Graphed(
            self._push_and_decide,
            "policy",
            device,
            recorder,
            reads=lambda: (self.observations, *network),
            generators=[self._generator],
        )
        self._last_inputs: tuple[torch.Tensor, ...] | None = None

    @property
    def ready(self) -> bool:
        return self._last_inputs is not None and self._step.ready(*self._last_inputs)

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def reset(self, observations: np.ndarray) -> None:
        self._generator.manual_seed(int(torch.randint(2**62, ())))
        held = self.observations
        super().reset(observations)
        if held.shape != self.observations.shape or held.dtype != self.observations.dtype:
            held = torch.empty_like(self.observations, memory_format=torch.contiguous_format)
        # In place, where a graph reads them.
        self.observations = held.copy_(self.observations)
        self._step.refresh()
        # Once a rollout: not worth a graph of its own.
        drawn = (upload(actions, self._device) for actions in self._drawn())
        self._start_readback(self._decide_by_generator(*drawn))

    def act(self) -> np.ndarray:
        return self._readback.wait()

    def observe(self, observations: np.ndarray, stack_reset: np.ndarray) -> None:
        newest = pinned(self._codec.encode_newest(observations), self._device)
        drawn = (pinned(actions, self._device) for actions in self._drawn())
        self._last_inputs = (newest, pinned(stack_reset, self._device), *drawn)
        self._start_readback(self._step(*self._last_inputs))
        self._last_observations = observations

    def current_values(self) -> torch.Tensor:
        return self.values

    def truncation_values(self, observations: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """As :meth:`RolloutActor.truncation_values`, computed for all environments at once.

        cuDNN times its kernels for each batch size.
        """
        padded = np.zeros((len(self.observations), *observations.shape[1:]), dtype=np.uint8)
        padded[envs] = observations
        return super().truncation_values(padded, np.arange(len(padded)))[envs]

    def _push_and_decide(
        self, newest: torch.Tensor, stack_reset: torch.Tensor, *drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self.observations.copy_(self._pushed(self.observations, newest, stack_reset))
        return self._decide_by_generator(*drawn)

    @torch.no_grad()
    def _decide_by_generator(
        self, *drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._decide(*drawn, generator=self._generator)

    def _start_readback(self, decided: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        self.actions, self.values, self.log_probs = decided
        self._readback.start(self.actions)


def make_actor(
    policy: ActingPolicy,
    codec: FrameCodec,
    device: torch.device,
    graphs: bool,
    draw: Draw | None = None,
) -> RolloutActor:
    """The actor for a device; ``graphs`` lets one on a GPU capture its steps."""
    if device.type == "cuda":
        return CudaRolloutActor(policy, codec, device, make_recorder(device, graphs), draw)
    return RolloutActor(policy, codec, device, draw)
