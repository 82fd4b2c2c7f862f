"""PPO behind stable-baselines3's face."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticCnnPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.actor import RolloutActor, make_actor
from agents.networks.policies import PixelActorCriticPolicy
from agents.on_policy.agent import OnPolicyAgent
from agents.on_policy.checks import check_minibatches
from agents.on_policy.learner import UpdateReport
from agents.ppo.adaptive_rate import adapted_rate
from agents.ppo.checks import check_adaptive_rate, check_options, policy_arguments
from agents.ppo.config import ADAM_EPS
from agents.ppo.learner import PPOLearner
from agents.ppo.objective import PPOObjective
from agents.sb3.arguments import arguments_for, checked_device
from agents.sb3.environments import make_checked_env
from envs.errors import UserError


class PPO(OnPolicyAgent[PixelActorCriticPolicy], SB3PPO):
    """Proximal policy optimisation (Schulman et al. 2017) from pixels.

    Takes stable-baselines3's arguments in its order, and keeps its callbacks, ``predict``, ``save``
    and ``load`` (its zip pickles: :mod:`agents.train.checkpoint` writes files that do not). With
    precision "fp32", uncompiled, one update equals stable-baselines3's own to rounding on the same
    batch. What differs:

    - Observations are uint8 images, actions discrete; the policy is ``"CnnPolicy"``, our
      :class:`~agents.networks.policies.PixelActorCriticPolicy`, whose encoder is chosen by
      ``policy_kwargs=dict(features_extractor_kwargs=dict(encoder="impala"))`` and whose precision
      by ``policy_kwargs=dict(precision="bf16")``.
    - Each frame is stored once, on the training device
      (:class:`~agents.storage.rollout.FrameRollout`).
    - ``ent_coef`` may be a schedule, too, as ``learning_rate`` and ``clip_range`` are.
    - A minibatch that does not divide the rollout is refused rather than truncated.
    - With precision "bf16", a callback's change to the policy inside a rollout acts from the next
      rollout on.
    - When a callback stops training inside a rollout, its steps, never learned from, are not
      counted: ``num_timesteps`` returns to its value at the last update.
    - Callbacks find no ``obs_tensor`` or ``clipped_actions`` among their locals.
    - With a :class:`~envs.groups.GroupedVecEnv`, groups of environments step in turn: while the
      policy acts for one group, the others step. Callbacks fire once all groups have taken a step.

    Args:
        normalize_value: whether the value head learns returns in deviations from their running
            mean, which the policy keeps, as in rl_games. Values are in units of return wherever
            they are used; ``clip_range_vf`` is in deviations.
        kl_threshold: adapts the learning rate, a number, to the divergence of each update; see
            :func:`~agents.ppo.adaptive_rate.adapted_rate`. ``target_kl`` is something else: it ends
            an update.
        adam_eps: epsilon of the policy's default optimizer.
        compile_update: whether the loss of a minibatch is compiled; see
            :class:`~rlcnn.accelerate.compilation.Compiled`.
        overlap: whether the next rollout is collected during an update, by the previous policy (the
            probabilities that PPO compares with are those it acted by). ``on_rollout_start`` fires
            while the update is under way: a callback that uses the policy, as for a checkpoint or a
            film, calls :meth:`finish_update` first, as ``predict``, ``save`` and the end of
            ``learn`` do. The next rollout then acts by the updated policy, which changes what is
            learned. With an encoder that draws random numbers in training, such as by dropout, two
            runs of one seed differ. Two rollouts are held in memory.
        cuda_graphs: whether, on a GPU, acting and a minibatch's update are each captured as a graph
            and replayed (:class:`~rlcnn.accelerate.cuda_graphs.Graphed`); an update not with
            ``target_kl``, which waits for the device at every minibatch. The first updates, which
            are captured, do not overlap.

    Attributes:
        adapted_rate: the learning rate of the next update with ``kl_threshold``.

    Raises:
        UserError: for what is not supported: generalised state-dependent exploration, other spaces,
            other buffers, normalising wrappers, minibatches that do not divide.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CnnPolicy": PixelActorCriticPolicy}
    replaced_policy = ActorCriticCnnPolicy
    policy: PixelActorCriticPolicy
    _learner: PPOLearner | None

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
        normalize_value: bool = False,
        kl_threshold: float | None = None,
        adam_eps: float = ADAM_EPS,
        compile_update: bool = False,
        overlap: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        check_options(use_sde, policy_kwargs, rollout_buffer_class, rollout_buffer_kwargs)
        if env is not None or _init_setup_model:
            env = make_checked_env(env, verbose)
            if _init_setup_model:
                n_envs = env.num_envs if isinstance(env, VecEnv) else 1
                check_minibatches(n_envs, n_steps, batch_size, normalize_advantage)
        check_adaptive_rate(learning_rate, kl_threshold)
        self.normalize_value, self.adam_eps = normalize_value, adam_eps
        self.kl_threshold = kl_threshold
        self.adapted_rate = 0.0 if kl_threshold is None else float(learning_rate)  # type: ignore[arg-type]
        self.compile_update, self.overlap = compile_update, overlap
        self.cuda_graphs = cuda_graphs
        device = checked_device(device)
        super().__init__(**arguments_for(SB3PPO, locals()))

    def _setup_model(self) -> None:
        # Not stable-baselines3's own, which would make its own rollout here.
        self._check_spaces_and_policy()
        self._check_sizes()
        added = policy_arguments(self.normalize_value, self.adam_eps, self.policy_kwargs)
        self._set_up_policy(**added)
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            if not callable(self.clip_range_vf) and self.clip_range_vf <= 0:
                raise UserError("clip_range_vf must be positive; None does not clip values")
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)
        self._set_up_updates(self.policy)
        self._set_up_storage()

    @property
    def _network(self) -> PixelActorCriticPolicy:
        return self.policy

    def _make_actor(self, network: PixelActorCriticPolicy) -> RolloutActor:
        return make_actor(network, self.rollout_buffer.codec, self.device, self.cuda_graphs)

    def _present_learner(self) -> PPOLearner:
        clips_values = self.clip_range_vf is not None
        objective = PPOObjective(self.normalize_advantage, clips_values, self.vf_coef)
        settings = (objective, self.max_grad_norm, self.target_kl)
        learner = self._learner
        if learner is None or (learner.policy, learner.settings) != (self.policy, settings):
            learner = PPOLearner(
                self.policy, *settings, compiled=self.compile_update, graphs=self.cuda_graphs
            )
        learner.set_coefficients(
            clip_range_vf=self._scheduled("clip_range_vf") if clips_values else 0.0,
            clip_range=self._scheduled("clip_range"),
            ent_coef=self._scheduled("ent_coef"),
        )
        return learner

    def _present_rate(self) -> float:
        return super()._present_rate() if self.kl_threshold is None else self.adapted_rate

    def _record_update(self, report: UpdateReport) -> dict[str, float]:
        figures = super()._record_update(report)
        if self.kl_threshold is not None:
            # The figures are on the host by now: nothing else waits for the device.
            kl = figures["approx_kl"]
            self.adapted_rate = adapted_rate(self.adapted_rate, kl, self.kl_threshold)
        return figures

    def _scheduled(self, name: str) -> float:
        value = getattr(self, name)
        if callable(value):
            value = value(self._current_progress_remaining)
            self.logger.record(f"train/{name}", value)
        return float(value)
