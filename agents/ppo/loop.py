"""PPO's engine: rollouts collected and learned from, in turn or beside each other."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.actor import InferenceCopy, make_player
from agents.collect.groups import EnvGroup, make_groups
from agents.networks.policies import PixelActorCriticPolicy
from agents.networks.transfer import frozen_state, unfreeze_when_due
from agents.ppo.learner import METRICS, Learner, Objective, UpdateReport
from agents.sb3.algorithm import LearningRateFactors, raise_if_not_finite
from agents.storage.rollout import FrameRollout
from envs.groups import join_steps
from envs.stacking import FrameStacking, frame_stacking
from rlcnn.accelerate.background import Background
from rlcnn.accelerate.cpu_threads import SpareCores
from rlcnn.accelerate.devices import use_threads


class PPOLoop(LearningRateFactors, SB3PPO):
    """What :class:`~agents.ppo.PPO`, which sets it up and explains it, does over and over."""

    policy: PixelActorCriticPolicy
    rollout_buffer: FrameRollout  # type: ignore[assignment]
    compile_update: bool
    overlap: bool
    cuda_graphs: bool
    _actor: InferenceCopy[PixelActorCriticPolicy]
    _background: Background[UpdateReport] | None
    _spare_cores: SpareCores

    def _stacking(self) -> FrameStacking:
        if self.env is not None:
            return frame_stacking(self.env)
        # Loaded without an environment: right for any, until set_env() brings one that says more.
        return FrameStacking(depth=1, channels=self.observation_space.shape[0])  # type: ignore[index]

    def _set_up_storage(self) -> None:
        """Makes what holds rollouts: of pixels, or of a frozen encoder's features."""
        stacking = self._stacking()
        stored = self._actor.network.what_to_store(stacking)
        self._seen_by = frozen_state(self.policy)
        rollouts = [
            FrameRollout(
                self.n_steps,
                self.observation_space,  # type: ignore[arg-type]
                self.action_space,  # type: ignore[arg-type]
                self.device,
                self.gae_lambda,
                self.gamma,
                self.n_envs,
                stacking=stacking,
                stored=stored,
            )
            for _ in range(2 if self.overlap else 1)
        ]
        self.rollout_buffer, self._spare_rollout = rollouts[0], rollouts[-1]
        self._learner: Learner | None = None
        self._groups: list[EnvGroup] | None = None
        self._grouped_env: VecEnv | None = None
        self._received_obs: np.ndarray | None = None

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

        Raises:
            UserError: there is no environment, or the loss or a parameter is no longer a finite
                number.
        """
        env = self.check_env_is_set()
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        iteration = 0
        threads = torch.get_num_threads()
        if self.overlap:
            # The others are the update's.
            torch.set_num_threads(1)
        try:
            with self._spare_cores:
                while self.num_timesteps < total_timesteps:
                    rollout = self.rollout_buffer
                    if not self.collect_rollouts(env, callback, rollout, self.n_steps):
                        break
                    iteration += 1
                    self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                    if log_interval is not None and iteration % log_interval == 0:
                        self.dump_logs(iteration)
                    self.train()
        finally:
            torch.set_num_threads(threads)
            self.finish_update()
        callback.on_training_end()
        return self

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: FrameRollout,  # type: ignore[override]
        n_rollout_steps: int,
    ) -> bool:
        """Steps every environment ``n_rollout_steps`` times with the current policy.

        Returns:
            False where a callback stopped it, else True.
        """
        assert self._last_obs is not None, "No previous observation was provided"
        rollout_buffer.reset()
        steps_learned = self.num_timesteps
        if not self._updating:
            self.policy.set_training_mode(False)
        callback.on_rollout_start()

        if not self._updating:
            # After the callback, which may have changed the policy or put another in its place.
            another = self._actor.source is not self.policy
            if another:
                self._actor = InferenceCopy(self.policy, apart=self.overlap)
            if another or self._seen_by != frozen_state(self.policy):
                # What a frozen encoder made of frames is worth nothing to another.
                self._set_up_storage()
                rollout_buffer = self.rollout_buffer
            self.policy.set_training_mode(False)
            self._actor.follow()
        groups = self._prepare_groups(env)
        assert isinstance(self._last_obs, np.ndarray)
        goes_on = self._last_obs is self._received_obs
        for group in groups:
            group.begin(None if goes_on else self._last_obs[group.envs])
        with use_threads(max(group.player.threads for group in groups)):
            actions = [group.send() for group in groups]
            for n_steps in range(n_rollout_steps):
                # While the games are played.
                for group in groups:
                    group.store(rollout_buffer)
                # As callbacks find them: the actor's own are those of the next step by then.
                values = rollout_buffer.values[n_steps][:, None]
                log_probs = rollout_buffer.log_probs[n_steps]
                more = n_steps + 1 < n_rollout_steps
                steps, following = [], []
                for group in groups:
                    steps.append(group.receive())
                    if more and group is not groups[-1]:
                        following.append(group.send())
                new_obs, rewards, dones, infos = join_steps(steps)

                self.num_timesteps += env.num_envs
                callback.update_locals({**locals(), "actions": np.concatenate(actions)})
                if not callback.on_step():
                    self.num_timesteps = steps_learned
                    # The games have moved on, and a later learning goes on from where they are.
                    for group in groups:
                        if (newest := group.finish()) is not None:
                            new_obs[group.envs], dones[group.envs] = newest
                    self._last_obs, self._last_episode_starts = new_obs, dones
                    return False

                self._update_info_buffer(infos, dones)
                for group in groups:
                    rewards[group.truncated] += self.gamma * group.truncation_values
                rollout_buffer.add(rewards, self._last_episode_starts)  # type: ignore[arg-type]
                self._last_obs = self._received_obs = new_obs
                self._last_episode_starts = dones
                if more:
                    actions = [*following, groups[-1].send()]

        last_values = torch.cat([group.player.values_here().flatten() for group in groups])
        rollout_buffer.compute_returns_and_advantage(last_values=last_values, dones=dones)

        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _prepare_groups(self, env: VecEnv) -> list[EnvGroup]:
        """The environments with actors for them, made anew where the policy or they are others."""
        acting = self._actor.network
        if (
            self._groups is None
            or self._grouped_env is not env
            or self._groups[0].player.policy is not acting
        ):
            stored = self.rollout_buffer.stored
            self._groups = make_groups(
                env, lambda: make_player(acting, stored, self.device, self.cuda_graphs)
            )
            self._grouped_env, self._received_obs = env, None
        return self._groups

    def train(self) -> None:
        """Learns ``n_epochs`` times from the rollout, in shuffled minibatches.

        With ``overlap`` it only begins to, once the update before is finished.
        """
        self.finish_update()
        rollout = self.rollout_buffer
        learner = self._prepare_learner()
        # Drawn here, so that nothing else ever draws from the generator in between.
        transitions = rollout.buffer_size * rollout.n_envs
        orders = [torch.randperm(transitions, device=self.device) for _ in range(self.n_epochs)]
        update = partial(learner.update, rollout, orders, self.batch_size)
        ready = learner.ready(rollout, self.batch_size) and self._actors_ready
        if self._background is None or not ready:
            # While something is captured as a graph, nothing else may go on.
            self._record_training(update(between=self._spare_cores.adjust))
        else:
            self._actor.follow()
            self._begun = self.num_timesteps, self._take_told()
            self._background.start(partial(update, between=self._background.take_free_threads))
        self.rollout_buffer, self._spare_rollout = self._spare_rollout, self.rollout_buffer

    @property
    def rollout_bytes(self) -> int:
        """What rollouts take in memory, of which there are two with ``overlap``."""
        rollouts = {id(rollout): rollout for rollout in (self.rollout_buffer, self._spare_rollout)}
        return sum(rollout.nbytes for rollout in rollouts.values())

    @property
    def _actors_ready(self) -> bool:
        return self._groups is None or all(group.player.ready for group in self._groups)

    @property
    def _updating(self) -> bool:
        return self._background is not None and self._background.busy

    def _take_told(self) -> dict[str, Any]:
        """What was recorded of an update that is about to begin, taken out of the log."""
        told = self.logger.name_to_value
        return {name: told.pop(name) for name in list(told) if name.startswith("train/")}

    def finish_update(self) -> None:
        """Waits for the update under way, if there is one, and logs it under its own step.

        Raises:
            UserError: the loss or a parameter is no longer a finite number.
        """
        if self._background is not None and self._background.busy:
            step, told = self._begun
            report = self._background.finish()
            # As whoever waited for it finds the policy between two updates.
            self.policy.set_training_mode(False)
            for name, value in told.items():
                self.logger.record(name, value)
            self._record_training(report)
            self.logger.dump(step)

    def _prepare_learner(self) -> Learner:
        """What updates, with everything it takes from outside as it is now."""
        self.policy.set_training_mode(True)
        unfreeze_when_due(self.policy, self.policy.unfreeze_at_step, self.num_timesteps)
        objective = Objective(
            normalize_advantage=self.normalize_advantage,
            clip_values=self.clip_range_vf is not None,
            vf_coef=self.vf_coef,
            max_grad_norm=self.max_grad_norm,
            target_kl=self.target_kl,
        )
        if self._learner is None or (self.policy, objective) != (
            self._learner.policy,
            self._learner.objective,
        ):
            self._learner = Learner(
                self.policy, objective, compiled=self.compile_update, graphs=self.cuda_graphs
            )
        clip_range_vf = None
        if self.clip_range_vf is not None:
            clip_range_vf = self._scheduled("clip_range_vf", self.clip_range_vf)
        self._learner.set_coefficients(
            clip_range=self._scheduled("clip_range", self.clip_range),
            clip_range_vf=clip_range_vf,
            ent_coef=self._scheduled("ent_coef", self.ent_coef),
        )
        self._update_learning_rate(self.policy.optimizer)
        return self._learner

    def _scheduled(self, name: str, value: Any) -> float:
        if callable(value):
            value = value(self._current_progress_remaining)
            self.logger.record(f"train/{name}", value)
        return float(value)

    def _record_training(self, report: UpdateReport) -> None:
        self._n_updates += report.epochs
        # The first wait for the device in an update.
        told = report.figures.tolist()
        named = dict(zip((*METRICS, "explained_variance"), told, strict=True))
        raise_if_not_finite(named["loss"], self.num_timesteps)
        # The last step can spoil the parameters after losses that were all finite.
        self.check_finite()
        for name, value in named.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def check_finite(self) -> None:
        """Looks at every parameter; to be called before anything of them is saved.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        self.finish_update()
        sums = [parameter.detach().sum() for parameter in self.policy.parameters()]
        raise_if_not_finite(torch.stack(sums).sum().item(), self.num_timesteps)
