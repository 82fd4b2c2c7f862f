"""PPO behind stable-baselines3's face."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Self

import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticCnnPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.actor import make_actor
from agents.collect.inference_copy import InferenceCopy
from agents.collect.on_policy import OnPolicyCollector
from agents.networks.policies import PixelActorCriticPolicy
from agents.networks.transfer import frozen_version, unfreeze_at
from agents.ppo.checks import check_minibatches, check_options
from agents.ppo.learner import FIGURES, PPOLearner, UpdateReport
from agents.ppo.objective import PPOObjective
from agents.sb3.agent import PixelAgent
from agents.sb3.arguments import arguments_for, check_count, checked_device
from agents.sb3.environments import make_checked_env
from agents.storage.rollout import FrameRollout
from envs.errors import UserError
from envs.stacking import FrameStacking, frame_stacking


class PPO(PixelAgent[PixelActorCriticPolicy, UpdateReport], SB3PPO):
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

    Raises:
        UserError: for what is not supported: generalised state-dependent exploration, other spaces,
            other buffers, normalising wrappers, minibatches that do not divide.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CnnPolicy": PixelActorCriticPolicy}
    replaced_policy = ActorCriticCnnPolicy
    policy: PixelActorCriticPolicy
    rollout_buffer: FrameRollout  # type: ignore[assignment]

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
        check_options(use_sde, policy_kwargs, rollout_buffer_class, rollout_buffer_kwargs)
        if env is not None or _init_setup_model:
            env = make_checked_env(env, verbose)
            if _init_setup_model:
                n_envs = env.num_envs if isinstance(env, VecEnv) else 1
                check_minibatches(n_envs, n_steps, batch_size, normalize_advantage)
        self.compile_update, self.overlap = compile_update, overlap
        self.cuda_graphs = cuda_graphs
        device = checked_device(device)
        super().__init__(**arguments_for(SB3PPO, locals()))

    def _setup_model(self) -> None:
        # Not stable-baselines3's own, which would make its own rollout here.
        self._check_spaces_and_policy()
        check_minibatches(self.n_envs, self.n_steps, self.batch_size, self.normalize_advantage)
        check_count("n_epochs", self.n_epochs)
        # torch takes no numpy integers for sizes.
        self.batch_size = int(self.batch_size)
        self._set_up_policy()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            if not callable(self.clip_range_vf) and self.clip_range_vf <= 0:
                raise UserError("clip_range_vf must be positive; None does not clip values")
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)
        self._set_up_updates(self.policy)
        self._set_up_storage()

    def _stacking(self) -> FrameStacking:
        if self.env is not None:
            return frame_stacking(self.env)
        # Loaded without an environment: right for any, until set_env() brings one that says more.
        return FrameStacking(depth=1, channels=self.observation_space.shape[0])  # type: ignore[index]

    def _set_up_storage(self) -> None:
        codec = self._acting_copy.network.storage_spec(self._stacking())
        self._frozen_version = frozen_version(self.policy)
        sizes = (self.n_steps, self.n_envs, codec, self.device)
        rollouts = [
            FrameRollout(*sizes, gae_lambda=self.gae_lambda, gamma=self.gamma)
            for _ in range(2 if self.overlap else 1)
        ]
        self.rollout_buffer, self._spare_rollout = rollouts[0], rollouts[-1]
        self._learner: PPOLearner | None = None
        self._collector: OnPolicyCollector | None = None

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Continues in another environment with the same spaces and number of environments.

        A UserError refuses one that PPO cannot learn from, or whose stacking does not fit its
        frames.
        """
        super().set_env(env, force_reset)
        if self._stacking() != self.rollout_buffer.codec.frame_stacking:
            self.finish_update()
            self._set_up_storage()

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Collects and learns in turn for ``total_timesteps`` steps, rounded up to whole rollouts.

        A UserError says that there is no environment, or that the loss or a parameter is not
        finite.
        """
        env, iteration = self.check_env_is_set(), 0
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        with self._runner.training():
            while self.num_timesteps < total_timesteps:
                if not self.collect_rollouts(env, callback, self.rollout_buffer, self.n_steps):
                    break
                iteration += 1
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                if log_interval is not None and iteration % log_interval == 0:
                    self.dump_logs(iteration)
                self.train()
        callback.on_training_end()
        return self

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: FrameRollout,  # type: ignore[override]
        n_rollout_steps: int,
    ) -> bool:
        """Steps every environment ``n_rollout_steps`` times; False if a callback stopped it."""
        rollout_buffer.reset()
        if not self._runner.busy:
            self.policy.set_training_mode(False)
        callback.on_rollout_start()
        if not self._runner.busy:
            # After the callback, which may have changed the policy or put another in its place.
            replaced = self._acting_copy.source is not self.policy
            if replaced:
                self._acting_copy = InferenceCopy(self.policy, apart=self.overlap)
            if replaced or self._frozen_version != frozen_version(self.policy):
                # Features of one frozen encoder are of no use to another.
                self._set_up_storage()
                rollout_buffer = self.rollout_buffer
            self.policy.set_training_mode(False)
            self._acting_copy.sync()
        callback.update_locals(locals())
        collector = self._prepare_collector(env)
        if not collector.collect(self, callback, rollout_buffer, n_rollout_steps):
            return False
        dones = self._last_episode_starts
        assert dones is not None
        rollout_buffer.compute_returns_and_advantage(collector.current_values(), dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _prepare_collector(self, env: VecEnv) -> OnPolicyCollector:
        """The collector, made anew if the environment or the acting policy is another."""
        policy, codec = self._acting_copy.network, self.rollout_buffer.codec
        made = self._collector
        if made is None or made.env is not env or made.groups[0].actor.policy is not policy:
            actor = partial(make_actor, policy, codec, self.device, self.cuda_graphs)
            made = self._collector = OnPolicyCollector(env, actor)
        return made

    def train(self) -> None:
        """Learns ``n_epochs`` times from the rollout, in shuffled minibatches.

        With ``overlap`` it finishes the update before and begins this one.
        """
        self.finish_update()
        rollout, learner = self.rollout_buffer, self._prepare_learner()
        # Drawn here, so that no other thread ever draws from the generator.
        transitions = rollout.buffer_size * rollout.n_envs
        orders = [torch.randperm(transitions, device=self.device) for _ in range(self.n_epochs)]
        update = partial(learner.update, rollout, orders, self.batch_size)
        if self.overlap and self._is_captured(learner):
            self._acting_copy.sync()
            # What is recorded of this update is logged with its result.
            recorded = self.logger.name_to_value
            own = {name: recorded.pop(name) for name in list(recorded) if name.startswith("train/")}
            self._runner.start(update, partial(self._end_update, self.num_timesteps, own))
        else:
            # While a graph is captured, nothing else may run.
            self._runner.run(update, self._record_update)
        self.rollout_buffer, self._spare_rollout = self._spare_rollout, self.rollout_buffer

    def _is_captured(self, learner: PPOLearner) -> bool:
        collects = self._collector is None or self._collector.ready
        return collects and learner.ready(self.rollout_buffer, self.batch_size)

    def _prepare_learner(self) -> PPOLearner:
        """The learner, with the agent's present options and rates."""
        self.policy.set_training_mode(True)
        unfreeze_at(self.policy, self.policy.unfreeze_at_step, self.num_timesteps)
        clips_values = self.clip_range_vf is not None
        objective = PPOObjective(self.normalize_advantage, clips_values, self.vf_coef)
        settings = (objective, self.max_grad_norm, self.target_kl)
        learner = self._learner
        if learner is None or (learner.policy, learner.settings) != (self.policy, settings):
            learner = self._learner = PPOLearner(
                self.policy, *settings, compiled=self.compile_update, graphs=self.cuda_graphs
            )
        learner.set_coefficients(
            clip_range_vf=self._scheduled("clip_range_vf") if clips_values else 0.0,
            clip_range=self._scheduled("clip_range"),
            ent_coef=self._scheduled("ent_coef"),
        )
        self._update_learning_rate(self.policy.optimizer)
        return learner

    def _scheduled(self, name: str) -> float:
        value = getattr(self, name)
        if callable(value):
            value = value(self._current_progress_remaining)
            self.logger.record(f"train/{name}", value)
        return float(value)

    def _end_update(self, step: int, metrics: dict[str, Any], report: UpdateReport) -> None:
        """Logs an update that ran beside a rollout, under the step that it learned up to."""
        for name, value in metrics.items():
            self.logger.record(name, value)
        self._record_update(report)
        self.logger.dump(step)

    def _record_update(self, report: UpdateReport) -> None:
        self._n_updates += report.epochs
        # The first wait for the device in an update.
        figures = dict(zip(FIGURES, report.figures.tolist(), strict=True))
        self.raise_if_not_finite(figures["loss"])
        # The last step can spoil the parameters after losses that were all finite.
        self.check_finite()
        for name, value in figures.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    @property
    def rollout_bytes(self) -> int:
        """Memory of the rollouts, of which there are two with ``overlap``."""
        return sum(rollout.nbytes for rollout in {self.rollout_buffer, self._spare_rollout})

    def _excluded_save_params(self) -> list[str]:
        parts = ["_learner", "_collector", "_spare_rollout", "_frozen_version"]
        return [*super()._excluded_save_params(), *parts]
