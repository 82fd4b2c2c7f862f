"""What agents that learn from rollouts add to stable-baselines3's face alike."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.actor import RolloutActor
from agents.collect.inference_copy import InferenceCopy
from agents.collect.on_policy import OnPolicyCollector
from agents.networks.policies import PixelPolicy
from agents.networks.transfer import frozen_version, unfreeze_at
from agents.on_policy.checks import check_minibatches
from agents.on_policy.learner import RolloutLearner, UpdateReport
from agents.sb3.agent import Network, PixelAgent
from agents.sb3.arguments import check_count
from agents.storage.rollout import FrameRollout
from envs.stacking import FrameStacking, frame_stacking


class OnPolicyAgent(PixelAgent[Network, UpdateReport], OnPolicyAlgorithm):
    """An agent that collects a rollout and learns from it in epochs of minibatches, in turn.

    With ``overlap`` it collects the next rollout during the update. A subclass says what learns,
    how to act and how to learn.
    """

    batch_size: int
    n_epochs: int
    cuda_graphs: bool
    normalize_advantage = False
    rollout_buffer: FrameRollout  # type: ignore[assignment]
    _learner: RolloutLearner | None
    _collector: OnPolicyCollector | None
    _acts_by: Network

    @property
    def _network(self) -> Network:
        """The network that learns and holds the features extractor."""
        raise NotImplementedError

    def _make_actor(self, network: Network) -> RolloutActor:
        """An actor of a group of environments; ``network`` is the acting copy."""
        raise NotImplementedError

    def _check_sizes(self) -> None:
        """Refuses sizes of rollouts and minibatches that do not fit by a UserError."""
        check_minibatches(self.n_envs, self.n_steps, self.batch_size, self.normalize_advantage)
        check_count("n_epochs", self.n_epochs)
        # torch takes no numpy integers for sizes.
        self.batch_size = int(self.batch_size)

    def _stacking(self) -> FrameStacking:
        if self.env is not None:
            return frame_stacking(self.env)
        # Loaded without an environment: right for any, until set_env() brings one that says more.
        return FrameStacking(depth=1, channels=self.observation_space.shape[0])  # type: ignore[index]

    def _set_up_storage(self) -> None:
        codec = self._acting_copy.network.storage_spec(self._stacking())
        self._frozen_version = frozen_version(self._network)
        sizes = (self.n_steps, self.n_envs, codec, self.device)
        rollouts = [
            FrameRollout(*sizes, gae_lambda=self.gae_lambda, gamma=self.gamma)
            for _ in range(2 if self.overlap else 1)
        ]
        self.rollout_buffer, self._spare_rollout = rollouts[0], rollouts[-1]
        self._learner = self._collector = None

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Continues in another environment with the same spaces and number of environments.

        A UserError refuses one that the agent cannot learn from, or whose stacking does not fit its
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
        tb_log_name: str = "",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Collects and learns in turn for ``total_timesteps`` steps, rounded up to whole rollouts.

        A UserError says that there is no environment, or that the loss or a parameter is not
        finite.
        """
        env, iteration = self.check_env_is_set(), 0
        tb_log_name = tb_log_name or type(self).__name__
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

    def _prepare_rollout(self) -> None:
        """Called at the start of each rollout, after the callbacks' ``on_rollout_start``."""

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
            replaced = self._acting_copy.source is not self._network
            if replaced:
                self._acting_copy = InferenceCopy(self._network, apart=self.overlap)
            if replaced or self._frozen_version != frozen_version(self._network):
                # Features of one frozen encoder are of no use to another.
                self._set_up_storage()
                rollout_buffer = self.rollout_buffer
            self.policy.set_training_mode(False)
            self._acting_copy.sync()
        self._prepare_rollout()
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
        network, made = self._acting_copy.network, self._collector
        if made is None or made.env is not env or self._acts_by is not network:
            self._acts_by = network
            made = self._collector = OnPolicyCollector(env, partial(self._make_actor, network))
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
            # Metrics recorded so far belong to this update, and are logged when it ends.
            recorded = self.logger.name_to_value
            own = {name: recorded.pop(name) for name in list(recorded) if name.startswith("train/")}
            self._runner.start(update, partial(self._end_update, self.num_timesteps, own))
        else:
            # While a graph is captured, nothing else may run.
            self._runner.run(update, self._record_update)
        self.rollout_buffer, self._spare_rollout = self._spare_rollout, self.rollout_buffer

    def _is_captured(self, learner: RolloutLearner) -> bool:
        collects = self._collector is None or self._collector.ready
        return collects and learner.ready(self.rollout_buffer, self.batch_size)

    def _prepare_learner(self) -> RolloutLearner:
        """The learner, with the agent's present options and rates."""
        self.policy.set_training_mode(True)
        assert isinstance(self.policy, PixelPolicy)
        unfreeze_at(self._network, self.policy.unfreeze_at_step, self.num_timesteps)
        learner = self._learner = self._present_learner()
        learner.prepare()
        self._update_learning_rate(self.policy.optimizer)
        return learner

    def _present_learner(self) -> RolloutLearner:
        """The learner of the update before, or a new one if an option that it took has changed."""
        raise NotImplementedError

    def _end_update(self, step: int, metrics: dict[str, Any], report: UpdateReport) -> None:
        """Logs an update that ran beside a rollout, under the step that it learned up to."""
        for name, value in metrics.items():
            self.logger.record(name, value)
        self._record_update(report)
        self.logger.dump(step)

    def _record_update(self, report: UpdateReport) -> dict[str, float]:
        """Logs the figures of an update, and returns them by name."""
        self._n_updates += report.epochs
        # The first wait for the device in an update.
        assert self._learner is not None
        figures = dict(zip(self._learner.figures, report.figures.tolist(), strict=True))
        self.raise_if_not_finite(figures["loss"])
        # The last step can spoil the parameters after losses that were all finite.
        self.check_finite()
        for name, value in figures.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        return figures

    @property
    def rollout_bytes(self) -> int:
        """Memory of the rollouts, of which there are two with ``overlap``."""
        return sum(rollout.nbytes for rollout in {self.rollout_buffer, self._spare_rollout})

    def _excluded_save_params(self) -> list[str]:
        parts: list[str] = [
            "_learner",
            "_collector",
            "_acts_by",
            "_spare_rollout",
            "_frozen_version",
        ]
        return [*super()._excluded_save_params(), *parts]
