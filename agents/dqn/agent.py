"""DQN behind stable-baselines3's face."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutReturn,
    Schedule,
    TrainFreq,
)
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import CnnPolicy

from agents.collect.exploration import EpsilonGreedy, explored
from agents.collect.off_policy import collect_steps
from agents.dqn import checks
from agents.dqn.actor import GreedyActor, scheduled_epsilon, spread_epsilon
from agents.dqn.draws import Draws
from agents.dqn.learner import DQNLearner
from agents.dqn.objectives import make_objective
from agents.dqn.variant import DQNVariant
from agents.networks.policies import PixelDQNPolicy, PixelQNetwork, take_floats
from agents.networks.transfer import frozen_digest, unfreeze_at
from agents.sb3.agent import PixelAgent
from agents.sb3.arguments import arguments_for, checked_device
from agents.sb3.environments import make_checked_env, with_encoder_options
from agents.storage.layout import layout_bytes, replay_layout
from agents.storage.replay import FrameReplay
from envs.stacking import frame_stacking
from rlcnn.accelerate.cuda_graphs import make_recorder
from rlcnn.accelerate.gradient_step import parameter_norm
from rlcnn.accelerate.memory import choose_place


class DQN(PixelAgent[PixelQNetwork, list[torch.Tensor]], SB3DQN):
    """Deep Q-learning (Mnih et al. 2015) from pixels.

    As stable-baselines3's in arguments, callbacks, ``predict``, ``save`` and ``load`` (whose zip
    pickles: :mod:`agents.train.checkpoint` writes files that do not), except:

    - Observations are uint8 images, actions discrete; the policy is ``"CnnPolicy"``, our
      :class:`~agents.networks.policies.PixelDQNPolicy`, with an encoder and a ``precision``.
    - ``train_freq``, ``learning_starts`` and ``target_update_interval`` count environment steps,
      however many environments take them: after every ``train_freq`` steps follow
      ``gradient_steps`` updates (-1: as many as steps). With 8 environments and ``train_freq=4``
      that is twice at each step of the vector. The number of updates follows from
      ``num_timesteps`` alone, so none is lost or doubled when training stops and continues. When it
      continues without its replay, the policy first collects ``learning_starts`` steps.
    - Every environment flips its own epsilon coin, in training from their own generator.
    - Each frame is stored once (:class:`~agents.storage.replay.FrameReplay`), in memory that is
      taken when learning starts.
    - A step is stored before callbacks see it: changes they make to its rewards are not learned.
      The step at which a callback stops training is still learned from.
    - If a callback replaces the policy, the new one is not used.

    With precision "fp32" one update equals stable-baselines3's own to rounding on the same batch.

    Attributes:
        exploration_limit: upper bound of epsilon; in an extended run, epsilon where it continues.
        loss_sum, loss_count: losses and gradient norms (2,) since the last log, and their number.

    Args:
        replay_device: where frames are stored: ``"auto"`` is the training device if they fit there
            and otherwise the host; or ``"cpu"``, or the training device's name.
        overlap: whether the steps up to the next updates are collected during the updates before
            them, by a network one round of updates older; batches stay the same but for priorities.
            ``on_rollout_start`` fires while updates are under way: a callback that uses the policy
            calls :meth:`finish_update` first, as ``predict``, ``save`` and the end of ``learn`` do.
        cuda_graphs: whether, on a GPU, acting and a gradient step are each captured as a graph and
            replayed (:class:`~rlcnn.accelerate.cuda_graphs.Graphed`); storing a step and sampling
            too, if the replay is on the GPU. The first updates, which are captured, do not overlap.
        variant: any field of :class:`~agents.dqn.variant.DQNVariant`, such as ``head="iqn"``.

    Raises:
        UserError: an argument is not supported, or the replay does not fit into memory.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CnnPolicy": PixelDQNPolicy}
    replaced_policy = CnnPolicy
    policy: PixelDQNPolicy
    replay_buffer: FrameReplay | None  # type: ignore[assignment]
    action_space: spaces.Discrete
    train_freq: TrainFreq  # type: ignore[assignment]
    exploration_limit: float = 1.0
    draws: Draws  # of the networks

    def __init__(
        self,
        policy: str | type[PixelDQNPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 32,
        tau: float = 1.0,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        target_update_interval: int = 10_000,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        max_grad_norm: float = 10,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        replay_device: str = "auto",
        overlap: bool = False,
        cuda_graphs: bool = False,
        **variant: Any,
    ) -> None:
        checks.check_buffer(replay_buffer_class, replay_buffer_kwargs, optimize_memory_usage)
        if env is not None or _init_setup_model:
            env = make_checked_env(env, verbose)
        self.replay_device, self.overlap = replay_device, overlap
        self.cuda_graphs, self.variant = cuda_graphs, DQNVariant.from_arguments(variant)
        device = checked_device(device)
        super().__init__(**arguments_for(SB3DQN, locals()))

    def _setup_model(self) -> None:
        # Not stable-baselines3's own, which would allocate its own replay here.
        self._check_spaces_and_policy()
        checks.check_rewards(self._vec_normalize_env)
        self._convert_train_freq()
        checks.check_counts(self)
        self.draws = Draws(self.device, self.variant.draws)
        self.policy_kwargs = with_encoder_options(self.policy_kwargs, self.variant.encoder_options)
        self._set_up_policy(**checks.policy_arguments(self.variant, self.policy_kwargs))
        take_floats(self.policy, self.variant.augments)
        self._create_aliases()
        self._set_up_updates(self.policy.q_net)
        # Summed where they lie, so that nothing waits for the device.
        self.loss_sum, self.loss_count = torch.zeros(2, device=self.device), 0

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """As :meth:`PixelAgent.set_env`; refuses rewards that DQN cannot learn from, too."""
        super().set_env(env, force_reset)
        checks.check_rewards(self._vec_normalize_env)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds everything random: torch, numpy, the environments, exploration and sampling."""
        super().set_random_seed(seed)
        exploring, predicting, sampling, drawing = np.random.SeedSequence(seed).spawn(4)
        n_actions = int(self.action_space.n)
        self.exploration = EpsilonGreedy(n_actions, exploring)
        self._predict_exploration = EpsilonGreedy(n_actions, predicting)
        self._sampler_seed = int(sampling.generate_state(1, np.uint32)[0])
        if self.replay_buffer is not None:
            self.replay_buffer.sampler.generator.manual_seed(self._sampler_seed)
        self.draws.seed(drawing)

    def setup_replay(self) -> FrameReplay:
        """The replay, made at the first call unless one was assigned.

        A UserError says that there is no environment, or where the replay does not fit.
        """
        stacking = frame_stacking(self.check_env_is_set())
        network = self._acting_copy.network
        if self.replay_buffer is None:
            codec = network.storage_spec(stacking)
            sizes = (self.buffer_size, int(self.action_space.n), self.n_envs, codec)
            needed, what = layout_bytes(replay_layout(*sizes)), f"{self.buffer_size:,} transitions"
            place = choose_place(self.replay_device, self.device, needed, f"a replay of {what}")
            recorder = make_recorder(place, self.cuda_graphs)
            draws: Any = {"seed": self._sampler_seed, "priorities": checks.priorities(self.variant)}
            self.replay_buffer = FrameReplay(*sizes, place, recorder=recorder, **draws)
        replay = checks.check_replay(self.replay_buffer, stacking, self.n_envs, self.variant)
        learner: DQNLearner | None = getattr(self, "_learner", None)
        if learner is None or learner.replay is not replay:
            # It is new or was assigned, and may hold the newest observations of other environments.
            replay.needs_begin = True
            parts = self.policy, replay, make_objective(self.variant), self.draws
            self._learner = DQNLearner(
                *parts,
                n_steps=self.n_steps,
                gamma=self.gamma,
                max_grad_norm=self.max_grad_norm,
                graphs=self.cuda_graphs,
            )
            self._actor = GreedyActor(network, replay, self._learner.captures, self.draws.acting)
        return replay

    def save_replay_buffer(self, path: str | Path) -> None:  # type: ignore[override]
        """Writes the replay as safetensors, without pickling. See :meth:`FrameReplay.save`."""
        self.setup_replay().save(path)

    def load_replay_buffer(  # type: ignore[override]
        self, path: str | Path, truncate_last_traj: bool = True
    ) -> None:
        """Reads what ``save_replay_buffer`` wrote; episodes under way then count as cut off."""
        self.setup_replay().load(path)

    def check_replay_encoder(self) -> None:
        """Raises UserError unless this agent's encoder made the features in the replay."""
        self.setup_replay().check_encoder_digest(frozen_digest(self.q_net))

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *more: Any,
        **options: Any,
    ) -> tuple[int, BaseCallback]:
        self.finish_update()
        replay = self.setup_replay()
        # The networks may have been loaded, or changed by hand.
        self._acting_copy.sync()
        self._learner.target.sync()
        self.check_replay_encoder()
        resets = reset_num_timesteps or self._last_obs is None
        total_timesteps, callback = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, *more, **options
        )
        if resets or replay.needs_begin:
            assert isinstance(self._last_obs, np.ndarray)
            replay.begin(self._last_obs)
        self._anneal()
        return total_timesteps, callback

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

        A UserError says that the loss or a parameter is not finite, or the replay does not fit.
        """
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        env, replay = self.check_env_is_set(), self.setup_replay()
        callback.on_training_start(locals(), globals())
        with self._runner.training():
            while self.num_timesteps < total_timesteps:
                before = self.num_timesteps
                rollout = self.collect_rollouts(
                    env, callback, self.train_freq, replay, None, self.learning_starts, log_interval
                )
                # Resumed without its replay, it would overfit the few steps that are new.
                if replay.collected * self.n_envs >= self.learning_starts:
                    before = max(before, self.learning_starts)
                    frequency = self.train_freq.frequency
                    rounds = max(0, self.num_timesteps // frequency - before // frequency)
                    updates = self.gradient_steps if self.gradient_steps >= 0 else frequency
                    self.train(rounds * updates, self.batch_size)
                if not rollout.continue_training:
                    break
        self.check_finite()
        callback.on_training_end()
        return self

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
        """Steps the environments until the next updates, as stable-baselines3's method does."""
        assert action_noise is None
        if not self._runner.busy:
            self.policy.set_training_mode(False)
        callback.on_rollout_start()
        # Asked again: the callback may have waited for the update.
        if not self._runner.busy:
            self._acting_copy.sync()
        callback.update_locals(locals())

        def act() -> np.ndarray:
            rate = 1.0 if self.num_timesteps < learning_starts else self.exploration_rate
            epsilon = spread_epsilon(rate, env.num_envs, self.variant.exploration_spread)
            assert isinstance(self._last_obs, np.ndarray)
            greedy = partial(self._actor.act, self._last_obs)
            return self.exploration.choose((env.num_envs,), epsilon, greedy)

        next_updates = (self.num_timesteps // train_freq.frequency + 1) * train_freq.frequency
        rollout = collect_steps(self, env, callback, replay_buffer, act, next_updates, log_interval)
        if rollout.continue_training:
            callback.on_rollout_end()
        return rollout

    def _on_step(self) -> None:
        """Updates the target network at its interval, and the exploration rate."""
        interval = self.target_update_interval
        moves = self.num_timesteps // interval - (self.num_timesteps - self.n_envs) // interval
        if moves:
            self.finish_update()
            # As many averaging steps at once as there were intervals in this step of the vector.
            self._learner.move_target(1 - (1 - self.tau) ** moves)
        self._anneal()
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def _anneal(self) -> None:
        if self._total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        scheduled = self.scheduled_epsilon(self._current_progress_remaining, self._total_timesteps)
        self.exploration_rate = min(scheduled, self.exploration_limit)

    def scheduled_epsilon(self, progress_remaining: float, total_timesteps: int) -> float:
        """Epsilon where a run of ``total_timesteps`` has a share of ``progress_remaining`` left."""
        return scheduled_epsilon(self, progress_remaining, total_timesteps)

    def train(self, gradient_steps: int, batch_size: int = 32) -> None:
        """Learns from ``gradient_steps`` batches; with ``overlap`` it only begins to."""
        if not gradient_steps:
            return
        learner = self._learner
        learner.replay.sampler.anneal(1 - self._current_progress_remaining)
        batches = learner.sample_batches(batch_size, gradient_steps, self._runner)
        self.finish_update()
        self.policy.set_training_mode(True)
        unfreeze_at(self.q_net, self.policy.unfreeze_at_step, self.num_timesteps)
        learner.prepare()
        self._actor.refresh()
        self._update_learning_rate(self.policy.optimizer)

        def update(_between: object) -> list[torch.Tensor]:
            # A round of updates is short: the number of threads stays as it is.
            return [learner.learn(batch) for batch in batches]

        if self.overlap and self._actor.ready() and learner.ready(batch_size, next(iter(batches))):
            self._acting_copy.sync()
            self._runner.start(update, self._add_losses)
        else:
            # While a graph is captured, nothing else may run.
            self._runner.run(update, self._add_losses)

    def _add_losses(self, losses: list[torch.Tensor]) -> None:
        self._learner.set_priorities()
        for loss in losses:
            self.loss_sum += loss
        self.loss_count += len(losses)
        self._n_updates += len(losses)

    def dump_logs(self) -> None:
        """Writes the log, with the mean loss since the last one; UserError if it is not finite."""
        if self.loss_count:
            loss, norm = (self.loss_sum / self.loss_count).tolist()
            self.raise_if_not_finite(loss)
            self.logger.record("train/loss", loss)
            self.logger.record("train/grad_norm", norm)
            # An update under way changes the network that learns; the copy has what it began with.
            network = self._acting_copy.network if self._runner.busy else self.q_net
            self.logger.record("train/param_norm", parameter_norm(network).item())
            self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
            self.loss_sum.zero_()
            self.loss_count = 0
        super().dump_logs()

    def _finite_tensors(self) -> list[torch.Tensor]:
        return [self.loss_sum, *super()._finite_tensors()]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Greedy actions int64, or with epsilon ``exploration_rate`` if not ``deterministic``."""
        self.finish_update()
        actions, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            actions = explored(self._predict_exploration, actions, self.exploration_rate)
        return actions, state

    def _excluded_save_params(self) -> list[str]:
        parts = ["_learner", "_actor", "exploration", "_predict_exploration", "loss_sum", "draws"]
        return [*super()._excluded_save_params(), *parts]
