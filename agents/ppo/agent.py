"""PPO behind stable-baselines3's face; :mod:`agents.ppo.loop` is its engine."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticCnnPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.actor import InferenceCopy
from agents.networks.policies import PixelActorCriticPolicy
from agents.networks.transfer import without_weights
from agents.ppo.learner import check_minibatches
from agents.ppo.loop import PPOLoop
from agents.sb3.algorithm import (
    check_images_and_discrete_actions,
    make_checked_env,
    with_frame_channels,
)
from agents.sb3.arguments import check_count, checked_device, resolve_policy
from agents.storage.rollout import FrameRollout
from envs.errors import UserError
from rlcnn.accelerate.background import Background
from rlcnn.accelerate.cpu_threads import SpareCores
from rlcnn.accelerate.devices import prepare_device


class PPO(PPOLoop):
    """Proximal policy optimisation (Schulman et al. 2017) from pixels.

    Takes stable-baselines3's arguments in its order, and keeps its callbacks, ``predict``, ``save``
    and ``load`` (its zip pickles: :mod:`agents.train.checkpoint` writes files that do not). What
    differs:

    - Observations are uint8 images, actions discrete; the policy is ``"CnnPolicy"``, our
      :class:`~agents.networks.policies.PixelActorCriticPolicy`, whose encoder is chosen by
      ``policy_kwargs=dict(features_extractor_kwargs=dict(encoder="impala"))`` and whose precision
      by ``policy_kwargs=dict(precision="bf16")``.
    - Each frame is stored once, on the training device
      (:class:`~agents.storage.rollout.FrameRollout`).
    - ``ent_coef`` may be a schedule, too, as ``learning_rate`` and ``clip_range`` are.
    - A minibatch that does not divide the rollout is refused rather than truncated.
    - What a callback does to the policy inside a rollout is acted by from the next one on, with
      precision "bf16".
    - When a callback stops training inside a rollout, its steps, never learned from, are not
      counted: ``num_timesteps`` returns to its value at the last update.
    - Callbacks find no ``obs_tensor``, ``clipped_actions`` or ``iteration`` among their locals.

    With precision "fp32", uncompiled, one update equals stable-baselines3's own to rounding on the
    same batch.

    With ``overlap``, a callback that waits for the update under way (for a checkpoint or a film)
    has the rollout that follows played by its outcome, and so changes what is learned; and with an
    encoder that draws random numbers in training, such as by dropout, two runs of one seed differ.

    With a :class:`~envs.groups.GroupedVecEnv`, groups of environments are played in turn: while the
    policy acts for one group, the others play. Callbacks fire once all groups have taken a step.

    Args:
        compile_update: whether the loss of a minibatch is compiled; see
            :class:`~rlcnn.accelerate.compilation.Compiled`.
        overlap: whether a rollout is collected while the one before is learned from, so that
            actions come from a policy one update older (the probabilities that PPO compares with
            are those it acted by). ``on_rollout_start`` then fires while the update is under way:
            a callback that looks at the policy calls :meth:`finish_update` first, as ``predict``,
            ``save`` and ``learn``'s end do. Two rollouts are held in memory.
        cuda_graphs: whether, on a GPU, what is done over and over is captured as a graph and
            replayed (:class:`~rlcnn.accelerate.cuda_graphs.Graphed`): acting, and a minibatch's
            update, though not with ``target_kl``, which asks the device about each of them. The
            first updates, in which this happens, are not overlapped.

    Raises:
        UserError: For what is not supported: generalised state-dependent exploration, other
            spaces, other buffers, normalising wrappers, minibatches that do not divide.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CnnPolicy": PixelActorCriticPolicy}

    def __init__(
        self,
        policy: str | type[PixelActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float | Schedule = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        compile_update: bool = False,
        overlap: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        if use_sde or (isinstance(policy_kwargs, dict) and policy_kwargs.get("use_sde")):
            raise UserError("use_sde is not supported: it explores continuous actions")
        if rollout_buffer_class not in (None, FrameRollout) or rollout_buffer_kwargs:
            raise UserError("rollout_buffer_class is not supported: frames are stored by our own")
        if env is not None or _init_setup_model:
            env = make_checked_env(env, verbose)
            if _init_setup_model:
                n_envs = env.num_envs if isinstance(env, VecEnv) else 1
                check_minibatches(n_envs, n_steps, batch_size, normalize_advantage)
        self.compile_update, self.overlap = compile_update, overlap
        self.cuda_graphs = cuda_graphs
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,  # type: ignore[arg-type]
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            target_kl=target_kl,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=checked_device(device),
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        self.policy_class, self.policy_kwargs = resolve_policy(
            self.policy_class, self.policy_kwargs, PixelActorCriticPolicy, ActorCriticCnnPolicy
        )
        check_images_and_discrete_actions(self.observation_space, self.action_space, self.env)
        check_minibatches(self.n_envs, self.n_steps, self.batch_size, self.normalize_advantage)
        check_count("n_epochs", self.n_epochs)
        # torch takes no numpy integers for sizes.
        self.batch_size = int(self.batch_size)
        self.policy_kwargs = with_frame_channels(self.policy_kwargs, self.env)
        self.rollout_buffer_class = FrameRollout  # type: ignore[assignment]
        self.rollout_buffer_kwargs = {"stacking": self._stacking()}
        super()._setup_model()
        prepare_device(self.device, self.policy.precision)
        self.policy_kwargs = without_weights(self.policy_kwargs)
        self._actor = InferenceCopy(self.policy, apart=self.overlap)
        self._set_up_storage()
        self._background = None
        # What float32 learns must not depend on what else runs on the machine.
        alone = self.device.type == "cpu" and not self.overlap
        self._spare_cores = SpareCores(alone and self.policy.precision == "bf16")
        if self.overlap:
            threads = torch.get_num_threads()
            # What float32 learns must not depend on when the rollout beside it was over.
            awaited = threads if self.policy.precision == "bf16" else None
            self._background = Background(self.device, max(1, threads - 1), awaited)

    def _excluded_save_params(self) -> list[str]:
        # Rebuilt when a saved model is loaded: neither compiled code nor a thread can be pickled.
        rebuilt = [
            "_learner",
            "_actor",
            "_background",
            "_spare_cores",
            "_spare_rollout",
            "_groups",
            "_grouped_env",
            "_received_obs",
            "_seen_by",
            "_begun",
        ]
        return [*super()._excluded_save_params(), *rebuilt]

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Goes on in another environment of the same spaces and number, however it stacks frames.

        Raises:
            UserError: The environment's stacks do not make its observations.
        """
        super().set_env(env, force_reset)
        if self._stacking() != self.rollout_buffer.stacking:
            self.finish_update()
            self._set_up_storage()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions int64 of uint8 observations, as stable-baselines3's; by all that was learned."""
        self.finish_update()
        return super().predict(observation, state, episode_start, deterministic)

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Writes a zip, as stable-baselines3's, of the agent as it stands between two updates."""
        self.finish_update()
        super().save(path, exclude, include)
