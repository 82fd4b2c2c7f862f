"""Acting: a network's copy for inference, and PPO's play by it, step by step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from agents.networks.policies import PixelActorCriticPolicy, PixelQNetwork
from agents.storage.items import Pixels, StackFollower, Stored
from agents.storage.stacking import push_frames
from rlcnn.accelerate.cuda_graphs import Graphed, Recorder, make_recorder, parameters_and_buffers
from rlcnn.accelerate.transfers import Readback, pinned
from rlcnn.encoders.blocks import cache_kernels

Network = TypeVar("Network", PixelActorCriticPolicy, PixelQNetwork)

# Additions and multiplications of one step's acting that are worth a CPU thread more.
_WORK_OF_A_THREAD = 6e8

# Layers whose weights autocast casts to bfloat16 just as they are.
_CAST = (nn.Conv2d, nn.Linear)


def acting_threads(act: Callable[[], object]) -> int:
    """How many CPU threads are worth computing ``act`` with, in turn with emulators.

    Torch's threads wait for each other after every layer, and do so busily, while emulators want
    the same cores: for little work fewer threads are faster. Its work is counted, not timed, so
    that it is the same in every run.

    Args:
        act: looks at the observations of one step, as it will at every step.

    Returns:
        At least 1, however many torch may use.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        act()
    return max(1, math.ceil(counter.get_total_flops() / _WORK_OF_A_THREAD))


class InferenceCopy(Generic[Network]):
    """Computes what a network does, to the bit, without casting its weights every time.

    Under autocast an encoder's weights are cast to bfloat16 each time it is called, which for the
    few observations of one step takes about as long as all that is done with them. The copy's were
    cast once, when :meth:`follow` was called last, and what its first layer makes of its weights
    before it uses them was made then, too.

    Attributes:
        network: what to call, in evaluation mode and without gradients.

    Args:
        source: the network that learns.
        apart: whether the copy is called while the source learns. Otherwise a source with precision
            "fp32", which casts nothing, serves itself.
    """

    def __init__(self, source: Network, apart: bool = False) -> None:
        self.source: Network = source
        self.network: Network = source
        if source.precision == "bf16" or apart:
            # Without an optimiser, whose moments are twice as large as the parameters.
            left_out = {id(getattr(source, "optimizer", None)): None}
            self.network = copy.deepcopy(source, left_out)
            self.network.set_training_mode(False)
        if source.precision == "bf16":
            for layer in self.network.features_extractor.modules():
                # No kinds of these: some compute with their weights before autocast casts them.
                if type(layer) in _CAST:
                    layer.to(torch.bfloat16)

    def follow(self) -> None:
        """Takes over what the source has learned."""
        if self.network is not self.source:
            _copy_all(parameters_and_buffers(self.network), parameters_and_buffers(self.source))
            low = self.source.precision == "bf16"
            cache_kernels(self.network, torch.bfloat16 if low else torch.float32)


@torch.no_grad()
def _copy_all(destinations: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copies each source to its destination, which may be of another dtype."""
    alike: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
    for destination, source in zip(destinations, sources, strict=True):
        if destination.dtype == source.dtype:
            alike[0].append(destination)
            alike[1].append(source)
        else:
            # torch._foreach_copy_ is wrong for mixed dtypes on CUDA in some releases.
            destination.copy_(source)
    torch._foreach_copy_(*alike)


class Player:
    """Plays environments in lockstep by a policy: :meth:`act`, and :meth:`look` at what came of it.

    Attributes:
        observations: what the environments stand at, on the device, as ``stored`` has it.
        actions, values, log_probs: what :meth:`act` made of it, on the device: int64, float32 and
            float32 (environments,), values perhaps (environments, 1). To be used before the next
            :meth:`look`.

    Args:
        policy: in evaluation mode.
        stored: what it sees of frames.
        device: of the policy.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    values: torch.Tensor
    log_probs: torch.Tensor

    def __init__(
        self, policy: PixelActorCriticPolicy, stored: Stored, device: torch.device
    ) -> None:
        self.policy = policy
        self._sees_pixels = isinstance(stored, Pixels)
        self._follower = StackFollower(stored, device)

    @property
    def ready(self) -> bool:
        """Whether nothing is left to be captured as a graph."""
        return True

    @property
    def threads(self) -> int:
        """CPU threads to play with, of those that torch has; to be asked for after a :meth:`begin`.

        All, where a frozen encoder looks at each frame; else see :func:`acting_threads`.
        """
        usable = torch.get_num_threads()
        return min(usable, self._worth) if self._sees_pixels else usable

    @cached_property
    def _worth(self) -> int:
        return acting_threads(lambda: self.policy.logits_and_values(self.observations))

    def begin(self, observations: np.ndarray) -> None:
        """Stands where it is not known how the environments came there.

        To be called, too, when the policy has learned.

        Args:
            observations: uint8 (environments, depth * channels, height, width). The very array
                that was looked at last is not brought to the device again.
        """
        self.observations = self._follower.begin(observations)

    @torch.no_grad()
    def act(self) -> np.ndarray:
        """Actions int64 (environments,), drawn from the policy."""
        self.actions, self.values, self.log_probs = self.policy(self.observations)
        return self.actions.cpu().numpy()

    def look(self, observations: np.ndarray, fresh: np.ndarray) -> None:
        """Stands one step further.

        Args:
            observations: as for :meth:`begin`.
            fresh: bool (environments,), whose stack began anew with this step.
        """
        self.observations = self._follower.follow(observations, fresh)

    @torch.no_grad()
    def values_here(self) -> torch.Tensor:
        """Values of what the environments stand at, float32 (environments,) or (.., 1)."""
        return self.policy.predict_values(self.observations)

    @torch.no_grad()
    def values_of_last(self, observations: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """Values, float32 (some environments,), of observations that were cut off.

        Args:
            observations: uint8 (some environments, depth * channels, height, width), one step on
                from where they stand: to be asked before :meth:`look`.
            envs: int64 (some environments,), which they are.
        """
        stacks = self._follower.last_of(observations, envs)
        return self.policy.predict_values(stacks).flatten().cpu().numpy()


class StagedPlayer(Player):
    """A player for a GPU, which waits for it but once a step, and as late as possible.

    Of observations only what is new goes there, through pinned memory; the stacks are kept where
    they are used. A look sets the policy going at once, all of it as one graph: what the host does
    before it asks for the actions takes no time.

    Actions are drawn from a generator of its own, seeded by torch's for the host at every
    :meth:`begin`: any graph's replay, as of an update in another thread, moves the places that
    graphs read of torch's generator for the device.

    Args:
        recorder: captures a look; None runs it as it stands.
    """

    def __init__(
        self,
        policy: PixelActorCriticPolicy,
        stored: Stored,
        device: torch.device,
        recorder: Recorder | None,
    ) -> None:
        super().__init__(policy, stored, device)
        self._stored, self._device = stored, device
        self._generator = torch.Generator(device)
        self._readback = Readback(device)
        self.observations = torch.empty(0, device=device)
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
        """Whether nothing is left to be captured as a graph."""
        return self._last_inputs is not None and self._step.ready(*self._last_inputs)

    @property
    def threads(self) -> int:
        """All that torch has: it is the GPU that computes."""
        return torch.get_num_threads()

    def begin(self, observations: np.ndarray) -> None:
        """As :meth:`Player.begin`; sets the policy going."""
        self._generator.manual_seed(int(torch.randint(2**62, ())))
        stacks = self._follower.begin(observations)
        if self.observations.shape != stacks.shape or self.observations.dtype != stacks.dtype:
            self.observations = torch.empty_like(stacks, memory_format=torch.contiguous_format)
        self.observations.copy_(stacks)
        self._follower.stand_at(observations, self.observations)
        self._step.refresh()
        # Once a rollout, and so not worth a graph of its own.
        self._note(self._decide())

    def act(self) -> np.ndarray:
        """Actions int64 (environments,), drawn from the policy."""
        return self._readback.wait()

    def look(self, observations: np.ndarray, fresh: np.ndarray) -> None:
        """As :meth:`Player.look`; sets the policy going."""
        newest = pinned(self._stored.newest(observations), self._device)
        self._last_inputs = (newest, pinned(fresh, self._device))
        self._note(self._step(*self._last_inputs))
        self._follower.stand_at(observations, self.observations)

    def values_here(self) -> torch.Tensor:
        """Values of what the environments stand at, float32 (environments, 1)."""
        return self.values

    def values_of_last(self, observations: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """As :meth:`Player.values_of_last`, for all environments at once.

        cuDNN times its kernels for each number of images.
        """
        shown = np.zeros((len(self.observations), *observations.shape[1:]), dtype=np.uint8)
        shown[envs] = observations
        return super().values_of_last(shown, np.arange(len(shown)))[envs]

    def _push_and_decide(
        self, newest: torch.Tensor, fresh: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        stacking, blank = self._stored.stacking, self._stored.blank
        self.observations.copy_(push_frames(self.observations, newest, fresh, stacking, blank))
        return self._decide()

    @torch.no_grad()
    def _decide(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.policy(self.observations, generator=self._generator)

    def _note(self, decided: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        self.actions, self.values, self.log_probs = decided
        self._readback.start(self.actions)


def make_player(
    policy: PixelActorCriticPolicy, stored: Stored, device: torch.device, graphs: bool
) -> Player:
    """The player for a device; ``graphs`` as of :class:`StagedPlayer`'s recorder."""
    if device.type == "cuda":
        return StagedPlayer(policy, stored, device, make_recorder(device) if graphs else None)
    return Player(policy, stored, device)
