"""DQN's engine: steps collected and batches learned from, in turn or beside each other."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFreq
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.actor import InferenceCopy
from agents.dqn.learner import QSteps
from agents.dqn.objectives import QBatch
from agents.networks.policies import PixelDQNPolicy, PixelQNetwork
from agents.networks.transfer import unfreeze_when_due
from agents.sb3.algorithm import LearningRateFactors, raise_if_not_finite
from agents.storage.items import Pixels
from agents.storage.replay import FrameReplay
from rlcnn.accelerate.background import Background
from rlcnn.accelerate.cpu_threads import SpareCores


class DQNLoop(LearningRateFactors, SB3DQN):
    """What :class:`~agents.dqn.DQN`, which sets it up and explains it, does over and over."""

    policy: PixelDQNPolicy
    replay_buffer: FrameReplay | None  # type: ignore[assignment]
    action_space: spaces.Discrete
    overlap: bool
    exploration_limit: float = 1.0
    """What epsilon does not rise above, whatever its schedule says: in a run that is extended,
    epsilon where the run goes on."""
    _actor: InferenceCopy[PixelQNetwork]
    _target: InferenceCopy[PixelQNetwork]
    _steps: QSteps
    _exploration_rng: np.random.Generator
    _background: Background[list[torch.Tensor]] | None
    _loss_sum: torch.Tensor
    _losses_summed: int
    _spare_cores: SpareCores

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "DQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Collects and learns in turn for ``total_timesteps`` environment steps, or a few more.

        Raises:
            UserError: the loss or a parameter is no longer a finite number, or the replay does not
                fit into memory.
        """
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        assert self.env is not None
        assert self.replay_buffer is not None
        assert isinstance(self.train_freq, TrainFreq)
        callback.on_training_start(locals(), globals())
        threads = torch.get_num_threads()
        if self.overlap:
            # The others are the update's.
            torch.set_num_threads(1)
        try:
            with self._spare_cores:
                while self.num_timesteps < total_timesteps:
                    steps_before = self.num_timesteps
                    rollout = self.collect_rollouts(
                        self.env,
                        callback,
                        self.train_freq,
                        self.replay_buffer,
                        learning_starts=self.learning_starts,
                        log_interval=log_interval,
                    )
                    updates = self._updates_due(steps_before, self.num_timesteps)
                    if updates:
                        self._spare_cores.adjust()
                        self.train(updates, self.batch_size)
                    if not rollout.continue_training:
                        break
        finally:
            torch.set_num_threads(threads)
            self.finish_update()
        self.check_finite()
        callback.on_training_end()
        return self

    def _updates_due(self, steps_before: int, steps_now: int) -> int:
        """Gradient steps owed to environment steps: some for each ``train_freq`` of them."""
        assert isinstance(self.train_freq, TrainFreq)
        assert self.replay_buffer is not None
        if self.replay_buffer.collected * self.n_envs < self.learning_starts:
            # Resumed without its replay: what little is new would be learned by heart.
            return 0
        frequency = self.train_freq.frequency
        steps_before = max(steps_before, self.learning_starts)
        rounds = max(0, steps_now // frequency - steps_before // frequency)
        return rounds * (self.gradient_steps if self.gradient_steps >= 0 else frequency)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: FrameReplay,  # type: ignore[override]
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Steps the environments until the next updates are due.

        Args:
            env: the training environments.
            callback: called at the beginning and the end, and at every step of the vector.
            train_freq: environment steps between updates.
            replay_buffer: where the steps go.
            action_noise: must be None: actions are discrete.
            learning_starts: environment steps before which all actions are random.
            log_interval: episodes between two logs.

        Returns:
            Steps and episodes collected, and whether to go on.
        """
        assert action_noise is None
        if not self._updating:
            self.policy.set_training_mode(False)
        num_collected_steps, num_collected_episodes = 0, 0
        callback.on_rollout_start()

        # Asked again, since the callback may have waited for the update.
        if not self._updating:
            self._actor.follow()
        next_updates = (self.num_timesteps // train_freq.frequency + 1) * train_freq.frequency
        continue_training = True
        while continue_training and self.num_timesteps < next_updates:
            actions = self._explore(replay_buffer, learning_starts)
            new_obs, rewards, dones, infos = env.step(actions)
            assert isinstance(new_obs, np.ndarray)
            replay_buffer.add(actions, rewards, dones, infos, new_obs)
            self._last_obs = new_obs
            self.num_timesteps += env.num_envs
            num_collected_steps += env.num_envs

            callback.update_locals(locals())
            continue_training = bool(callback.on_step())

            self._update_info_buffer(infos, dones)
            self._on_step()
            ended = int(dones.sum())
            num_collected_episodes += ended
            self._episode_num += ended
            # At most once a step: rows of metrics are keyed by it.
            if log_interval is not None and self._episode_num % log_interval < ended:
                self.dump_logs()
        if continue_training:
            callback.on_rollout_end()
        return RolloutReturn(num_collected_steps, num_collected_episodes, continue_training)

    def _explore(self, replay: FrameReplay, learning_starts: int) -> np.ndarray:
        """Epsilon-greedy actions int64 (environments,), from where the replay ends."""
        epsilon = 1.0 if self.num_timesteps < learning_starts else self.exploration_rate
        rng, n_envs = self._exploration_rng, replay.n_envs
        # Both are drawn whatever comes of them, so the draws of a step are always the same ones.
        coins = rng.random(n_envs) < epsilon
        actions = rng.integers(self.action_space.n, size=n_envs)
        if coins.all():
            return actions
        assert isinstance(self._last_obs, np.ndarray)
        at_hand = self.device.type == "cpu" and isinstance(replay.stored, Pixels)
        greedy = self._steps.choose(self._last_obs if at_hand else None)
        return np.where(coins, actions, greedy)

    def _on_step(self) -> None:
        """Updates the target network where it is due, and the exploration rate."""
        interval = self.target_update_interval
        due = self.num_timesteps // interval - (self.num_timesteps - self.n_envs) // interval
        if due:
            self.finish_update()
            # As many averaging steps at once as there were intervals in this step of the vector.
            tau = 1 - (1 - self.tau) ** due
            polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), tau)
            polyak_update(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)
            self._target.follow()
        self._anneal()
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def _anneal(self) -> None:
        if self._total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        rate = self.exploration_schedule(self._current_progress_remaining)
        self.exploration_rate = min(rate, self.exploration_limit)

    def train(self, gradient_steps: int, batch_size: int = 32) -> None:
        """Learns from ``gradient_steps`` batches; the loss waits on the device for the next log.

        With ``overlap`` it only begins to, once the updates before are finished.
        """
        steps = self._steps
        batches: Iterable[QBatch] = (steps.draw(batch_size) for _ in range(gradient_steps))
        if self._background is not None:
            # Now, before more steps are stored, and beside the updates before.
            if not steps.can_draw_beside_updates(batch_size):
                self.finish_update()
            batches = steps.draw_all(batch_size, gradient_steps)
        self.finish_update()
        self.policy.set_training_mode(True)
        unfreeze_when_due(self.q_net, self.policy.unfreeze_at_step, self.num_timesteps)
        steps.prepare()
        self._update_learning_rate(self.policy.optimizer)
        update = partial(self._update, batches)
        if self._background is None or not steps.ready(batch_size, next(iter(batches))):
            # While something is captured as a graph, nothing else may go on.
            self._note_losses(update())
            return
        self._actor.follow()
        self._background.start(update)

    def _update(self, batches: Iterable[QBatch]) -> list[torch.Tensor]:
        """A gradient step on each batch; their losses."""
        return [self._steps.learn(batch) for batch in batches]

    @property
    def _updating(self) -> bool:
        return self._background is not None and self._background.busy

    def finish_update(self) -> None:
        """Waits for the updates under way, if there are any, and takes note of their losses."""
        if self._background is not None and self._background.busy:
            losses = self._background.finish()
            # As whoever waited for them finds the policy between two updates.
            self.policy.set_training_mode(False)
            self._note_losses(losses)

    def _note_losses(self, losses: list[torch.Tensor]) -> None:
        for loss in losses:
            self._loss_sum += loss
        self._losses_summed += len(losses)
        self._n_updates += len(losses)

    def dump_logs(self) -> None:
        """Writes the log, with the mean loss since the last one.

        Raises:
            UserError: that loss is not finite.
        """
        if self._losses_summed:
            loss = self._loss_sum.item() / self._losses_summed
            raise_if_not_finite(loss, self.num_timesteps)
            self.logger.record("train/loss", loss)
            self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
            self._loss_sum.zero_()
            self._losses_summed = 0
        super().dump_logs()

    def check_finite(self) -> None:
        """Looks at the loss and every parameter; to be called before anything of them is saved.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        self.finish_update()
        sums = [
            self._loss_sum,
            *(parameter.detach().sum() for parameter in self.q_net.parameters()),
        ]
        raise_if_not_finite(torch.stack(sums).sum().item(), self.num_timesteps)
