"""What our agents add to stable-baselines3's base class alike."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.inference_copy import InferenceCopy
from agents.networks.policies import PixelActorCriticPolicy, PixelQNetwork
from agents.networks.transfer import without_weights
from agents.sb3.arguments import checked_device, resolve_policy
from agents.sb3.environments import (
    check_images_and_discrete_actions,
    make_checked_env,
    with_frame_channels,
)
from envs.errors import UserError
from rlcnn.accelerate.devices import prepare_device
from rlcnn.accelerate.gradient_step import portable_state
from rlcnn.accelerate.update_runner import UpdateRunner
from rlcnn.encoders.finetuning import set_learning_rate

R = TypeVar("R")
Network = TypeVar("Network", PixelActorCriticPolicy, PixelQNetwork)

# Zips of ``save`` pickle classes by their modules.
FORMER_NAMES = {  # former name: present name
    "agents.policies": "agents.networks.policies",
    "agents.replay": "agents.storage.replay",
    "agents.rollout": "agents.storage.rollout",
    "rlcnn.encoders.sb3": "rlcnn.sb3",
}


@contextmanager
def former_names() -> Iterator[None]:
    """Lets zips be read that were saved under former module names."""
    sys.modules.update({old: importlib.import_module(new) for old, new in FORMER_NAMES.items()})
    try:
        yield
    finally:
        for old in FORMER_NAMES:
            del sys.modules[old]


class PixelAgent(BaseAlgorithm, Generic[Network, R]):
    """An agent of stable-baselines3 whose updates may run beside its rollouts.

    It refuses in one line what is not supported, and anneals every parameter group's learning rate
    by the group's own ``lr_factor``.
    """

    replaced_policy: ClassVar[type[BasePolicy]]
    """stable-baselines3's policy for images, in whose place ours is made."""

    overlap: bool
    _acting_copy: InferenceCopy[Network]
    _runner: UpdateRunner[R]

    def _check_spaces_and_policy(self) -> None:
        self.policy_class, self.policy_kwargs = resolve_policy(
            self.policy_class,
            self.policy_kwargs,
            self.policy_aliases["CnnPolicy"],
            self.replaced_policy,
        )
        check_images_and_discrete_actions(self.observation_space, self.action_space, self.env)

    def _set_up_policy(self, **arguments: Any) -> None:
        """Makes the policy as stable-baselines3 does, but no storage.

        ``arguments`` of the policy follow from the agent's own.
        """
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy_kwargs = with_frame_channels(self.policy_kwargs, self.env)
        policy = self.policy_class(
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            **{**self.policy_kwargs, **arguments},
        )
        self.policy = policy.to(self.device)
        self.policy_kwargs = without_weights(self.policy_kwargs)

    def _set_up_updates(self, network: Network) -> None:
        prepare_device(self.device, network.precision)
        self._acting_copy = InferenceCopy(network, apart=self.overlap)

        def end_training_mode() -> None:
            # After a wait the policy must be as between two updates.
            self.policy.set_training_mode(False)

        self._runner = UpdateRunner(self.device, network.precision, self.overlap, end_training_mode)

    @classmethod
    def load(
        cls, path: Any, env: GymEnv | None = None, device: Any = "auto", *args: Any, **kwargs: Any
    ) -> Self:
        """Reads a zip that ``save`` wrote, as stable-baselines3's ``load``.

        A UserError refuses what is no environment for an agent here, a device that this machine
        lacks, or another variant of DQN than the file's.
        """
        made = None if env is None else make_checked_env(env, verbose=0)
        try:
            with former_names():
                loaded = super().load(path, made, checked_device(device), *args, **kwargs)
        except ValueError as error:
            if not str(error).startswith("The specified policy kwargs do not equal"):
                raise
            # The file holds also those that the environment determined.
            raise UserError(
                "policy_kwargs are not those of the file: leave them out of load(), which takes"
                " them from there"
            ) from error
        variant = getattr(loaded, "variant", None)
        if parts := [name for name in kwargs if hasattr(variant, name)]:
            raise UserError(
                f"{parts[0]} cannot change when an agent is loaded: leave it out of load(), or"
                " make a new agent"
            )
        return loaded

    def check_env_is_set(self) -> VecEnv:
        """The environment; a UserError if there is none, as after loading without one."""
        if self.env is None:
            raise UserError(
                "the agent has no environment: call set_env(env) first, or load it with"
                f" {type(self).__name__}.load(path, env=env)"
            )
        return self.env

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Continues in another environment with the same spaces and number of environments.

        A UserError refuses one that no agent here can learn from.
        """
        super().set_env(make_checked_env(env, self.verbose), force_reset)

    def finish_update(self) -> None:
        """Waits for the update under way, if there is one, and logs it.

        A UserError says that the loss or a parameter is no longer a finite number.
        """
        self._runner.finish()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions int64 for uint8 observations, as stable-baselines3's, after all updates."""
        self.finish_update()
        return super().predict(observation, state, episode_start, deterministic)

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Writes a zip, as stable-baselines3's, of the agent between two updates."""
        self.finish_update()
        super().save(path, exclude, include)

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """The state of the policy and of its optimiser, as :meth:`save` writes them."""
        return {
            **super().get_parameters(),
            "policy.optimizer": portable_state(self.policy.optimizer),
        }

    def check_finite(self) -> None:
        """Checks parameters, and DQN's losses; to be called before anything is saved.

        A UserError says that one of them is NaN or infinite.
        """
        self.finish_update()
        sums = [tensor.detach().sum() for tensor in self._finite_tensors()]
        self.raise_if_not_finite(torch.stack(sums).sum().item())

    def _finite_tensors(self) -> list[torch.Tensor]:
        return list(self.policy.parameters())

    def raise_if_not_finite(self, loss: float) -> None:
        """Stops a training by a UserError if its loss is NaN or infinite."""
        if not math.isfinite(loss):
            raise UserError(
                f"the loss became {loss} by step {self.num_timesteps}: training stopped; the"
                " checkpoints up to here are whole. A lower learning rate is the usual cure"
            )

    def _excluded_save_params(self) -> list[str]:
        # Made anew when a saved model is loaded: a thread, for one, cannot be pickled.
        return [*super()._excluded_save_params(), "_acting_copy", "_runner"]

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise UserError(
                f'policy "{policy_name}" is unknown: observations are images, so the policy is'
                ' "CnnPolicy"'
            )
        return super()._get_policy_from_name(policy_name)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        try:
            return super()._init_callback(callback, progress_bar)
        except ImportError as error:
            if not progress_bar:
                raise
            raise UserError("progress_bar=True needs tqdm: pip install tqdm") from error

    def _present_rate(self) -> float:
        """The learning rate of the next update, of a group without a factor of its own."""
        return self.lr_schedule(self._current_progress_remaining)

    def _update_learning_rate(
        self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer
    ) -> None:
        # stable-baselines3's own gives a fine-tuned encoder the heads' rate, and replaces a rate
        # that is a tensor, which captured code reads, by a number.
        rate = self._present_rate()
        self.logger.record("train/learning_rate", rate)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            set_learning_rate(optimizer, rate)
