"""DQN behind stable-baselines3's face; :mod:`agents.dqn.loop` is its engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    Schedule,
    TrainFreq,
    TrainFrequencyUnit,
)
from stable_baselines3.common.utils import LinearSchedule, get_parameters_by_name
from stable_baselines3.dqn.policies import CnnPolicy

from agents.collect.actor import InferenceCopy
from agents.dqn.learner import QSteps
from agents.dqn.loop import DQNLoop
from agents.networks.policies import PixelDQNPolicy
from agents.networks.transfer import frozen_digest, without_weights
from agents.sb3.algorithm import (
    check_images_and_discrete_actions,
    check_stacking,
    make_checked_env,
    with_frame_channels,
)
from agents.sb3.arguments import check_count, checked_device, resolve_policy
from agents.storage.replay import FrameReplay
from agents.storage.samplers import NStepReturns, UniformSampler
from envs.errors import UserError
from envs.stacking import frame_stacking
from rlcnn.accelerate.background import Background
from rlcnn.accelerate.cpu_threads import SpareCores
from rlcnn.accelerate.cuda_graphs import make_recorder
from rlcnn.accelerate.devices import prepare_device
from rlcnn.accelerate.memory import choose_place


class DQN(DQNLoop):
    """Deep Q-learning (Mnih et al. 2015) from pixels.

    Takes stable-baselines3's arguments in its order, and keeps its callbacks, ``predict``, ``save``
    and ``load`` (its zip pickles: :mod:`agents.train.checkpoint` writes files that do not). What
    differs:

    - Observations are uint8 images, actions discrete; the policy is ``"CnnPolicy"``, our
      :class:`~agents.networks.policies.PixelDQNPolicy`, whose encoder is chosen by
      ``policy_kwargs=dict(features_extractor_kwargs=dict(encoder="impala"))`` and whose precision
      by ``policy_kwargs=dict(precision="bf16")``.
    - ``train_freq``, ``learning_starts`` and ``target_update_interval`` count environment steps,
      however many environments take them: after every ``train_freq`` of them follow
      ``gradient_steps`` updates (-1: as many as steps). With 8 environments and ``train_freq=4``
      that is twice at each step of the vector. What is due follows from ``num_timesteps`` alone,
      so nothing is lost or doubled where training stops and goes on. Where it goes on without its
      replay, ``learning_starts`` steps are collected by the policy before it learns again.
    - Every environment flips an epsilon coin of its own, in training and in ``predict``. The coins
      of training come from a generator that nothing else draws from.
    - Each frame is stored once (:class:`~agents.storage.replay.FrameReplay`), in memory that is
      taken when learning starts; ``optimize_memory_usage`` is not needed.
    - A step is stored before callbacks see it: what they change of its rewards is not learned
      from. When one stops training, the step it saw is learned from all the same.
    - A policy that a callback puts in the place of this one is not followed.

    With precision "fp32" one update equals stable-baselines3's own to rounding on the same batch.

    Args:
        replay_device: where frames are stored: ``"auto"`` is the training device if they fit there
            and otherwise the host; or ``"cpu"``, or the training device's name.
        overlap: whether the steps up to the next updates are taken while those before are under
            way, so that actions come from a network one round of updates older. What is learned
            from, and towards which values, stays the same: batches are drawn, and the target
            network moved, where they are without. ``on_rollout_start`` then fires while updates
            are under way: a callback that looks at the policy calls :meth:`finish_update` first,
            as ``predict``, ``save`` and ``learn``'s end do. A log tells of what is finished.
        cuda_graphs: whether, on a GPU, acting and a gradient step are each captured as a graph and
            replayed (:class:`~rlcnn.accelerate.cuda_graphs.Graphed`); storing a step and sampling
            too, where the replay lies on the GPU. The first updates, in which this happens, are not
            overlapped.

    Raises:
        UserError: For what is not supported: other spaces, other buffers, normalising wrappers,
            ``train_freq`` in episodes; and where the replay does not fit into memory.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CnnPolicy": PixelDQNPolicy}

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
    ) -> None:
        if replay_buffer_class is not None or replay_buffer_kwargs:
            raise UserError("replay_buffer_class is not supported: frames are stored by our own")
        if optimize_memory_usage:
            raise UserError(
                "optimize_memory_usage is not needed: every frame is stored once anyway"
            )
        if env is not None or _init_setup_model:
            env = make_checked_env(env, verbose)
        self.replay_device, self.overlap = replay_device, overlap
        self.cuda_graphs = cuda_graphs
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            n_steps=n_steps,
            target_update_interval=target_update_interval,
            exploration_fraction=exploration_fraction,
            exploration_initial_eps=exploration_initial_eps,
            exploration_final_eps=exploration_final_eps,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=checked_device(device),
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        # Not stable-baselines3's own, which would fill the memory with a buffer of its own here.
        self.policy_class, self.policy_kwargs = resolve_policy(
            self.policy_class, self.policy_kwargs, PixelDQNPolicy, CnnPolicy
        )
        check_images_and_discrete_actions(self.observation_space, self.action_space, self.env)
        self._check_rewards()
        self._convert_train_freq()
        self._check_counts()
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy_kwargs = with_frame_channels(self.policy_kwargs, self.env)
        policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        )
        self.policy = policy.to(self.device)  # type: ignore[assignment]
        prepare_device(self.device, self.policy.precision)
        self.policy_kwargs = without_weights(self.policy_kwargs)
        self._create_aliases()
        self._actor = InferenceCopy(self.policy.q_net, apart=self.overlap)
        self._target = InferenceCopy(self.policy.q_net_target)
        self.batch_norm_stats = get_parameters_by_name(self.q_net, ["running_"])
        self.batch_norm_stats_target = get_parameters_by_name(self.q_net_target, ["running_"])
        self.exploration_schedule = LinearSchedule(
            self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        )
        self._loss_sum = torch.zeros((), device=self.device)
        self._losses_summed = 0
        self._background = None
        # What float32 learns must not depend on what else runs on the machine.
        alone = self.device.type == "cpu" and not self.overlap
        self._spare_cores = SpareCores(alone and self.policy.precision == "bf16")
        if self.overlap:
            self._background = Background(self.device, max(1, torch.get_num_threads() - 1))

    def _check_rewards(self) -> None:
        normalize = self._vec_normalize_env
        if normalize is not None and normalize.norm_reward:
            raise UserError(
                "VecNormalize is not supported for DQN: the scale of its rewards changes while"
                " they are stored; clip or scale the rewards in the environment instead"
            )

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Goes on in another environment of the same spaces and number.

        Raises:
            UserError: what DQN cannot learn from.
        """
        super().set_env(env, force_reset)
        self._check_rewards()

    def _check_counts(self) -> None:
        assert isinstance(self.train_freq, TrainFreq)
        if self.train_freq.unit != TrainFrequencyUnit.STEP:
            raise UserError("train_freq in episodes is not supported: it counts environment steps")
        least = {
            "train_freq": (self.train_freq.frequency, 1),
            "gradient_steps": (self.gradient_steps, -1),
            "buffer_size": (self.buffer_size, 1),
            "batch_size": (self.batch_size, 1),
            "n_steps": (self.n_steps, 1),
            "target_update_interval": (self.target_update_interval, 1),
            "learning_starts": (self.learning_starts, 0),
        }
        for name, (value, minimum) in least.items():
            check_count(name, value, minimum)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds everything random: torch, numpy, the environments, exploration and sampling."""
        super().set_random_seed(seed)
        exploring, predicting, sampling = np.random.SeedSequence(seed).spawn(3)
        self._exploration_rng = np.random.default_rng(exploring)
        self._predict_rng = np.random.default_rng(predicting)
        self._sampler_seed = int(sampling.generate_state(1, np.uint32)[0])
        if self.replay_buffer is not None:
            device = self.replay_buffer.device
            self.replay_buffer.sampler = UniformSampler(device, self._sampler_seed)
            self._set_up_steps()

    @property
    def exploration_state(self) -> dict[str, Any]:
        """The state of the generator that explores, as plain JSON; can be set."""
        return dict(self._exploration_rng.bit_generator.state)

    @exploration_state.setter
    def exploration_state(self, state: dict[str, Any]) -> None:
        self._exploration_rng.bit_generator.state = state

    def setup_replay(self) -> FrameReplay:
        """The replay, made when first asked for.

        Raises:
            UserError: it does not fit into memory, or not to the environment, or there is none.
        """
        # It says how frames are stacked.
        env = self.check_env_is_set()
        assert isinstance(self.observation_space, spaces.Box)
        stacking = frame_stacking(env)
        check_stacking(self.observation_space, stacking)
        if self.replay_buffer is None:
            arguments = (self.buffer_size, self.observation_space, self.action_space)
            stored = self._actor.network.what_to_store(stacking)
            needed = FrameReplay.memory_needed(*arguments, self.n_envs, stacking, stored)
            what = f"a replay of {self.buffer_size:,} transitions"
            device = choose_place(self.replay_device, self.device, needed, what)
            self.replay_buffer = FrameReplay(
                *arguments,
                device,
                self.n_envs,
                stacking=stacking,
                stored=stored,
                seed=self._sampler_seed,
                recorder=make_recorder(device) if self.cuda_graphs else None,
            )
            self._returns = NStepReturns(self.n_steps, self.gamma, device)
            self._replay_follows = False
            self._set_up_steps()
        elif self.replay_buffer.stacking != stacking:
            raise UserError(
                f"the replay holds stacks of {self.replay_buffer.stacking},"
                f" the environment now makes {stacking}"
            )
        return self.replay_buffer

    def _set_up_steps(self) -> None:
        assert self.replay_buffer is not None
        self._steps = QSteps(
            self.policy.q_net,
            self.policy.optimizer,
            target=self._target.network,
            actor=self._actor.network,
            replay=self.replay_buffer,
            returns=self._returns,
            max_grad_norm=self.max_grad_norm,
            graphs=self.cuda_graphs,
        )

    def save_replay_buffer(self, path: str | Path) -> None:  # type: ignore[override]
        """Writes the replay as safetensors; nothing is pickled. See :meth:`FrameReplay.save`."""
        self.setup_replay().save(path)

    def load_replay_buffer(  # type: ignore[override]
        self, path: str | Path, truncate_last_traj: bool = True
    ) -> None:
        """Reads what ``save_replay_buffer`` wrote. See :meth:`FrameReplay.load`.

        The trajectory under way when it was written always counts as cut off there.
        """
        self.setup_replay().load(path)
        self._replay_follows = False

    def claim_replay(self) -> None:
        """Goes on with the replay, if what it holds was made by this agent's frozen encoder.

        Raises:
            UserError: it was made by another one.
        """
        self.setup_replay().claim(frozen_digest(self.q_net))

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self.finish_update()
        replay = self.setup_replay()
        # They may have been loaded, or put there by hand.
        self._actor.follow()
        self._target.follow()
        self.claim_replay()
        starts_anew = reset_num_timesteps or self._last_obs is None
        total_timesteps, callback = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if starts_anew or not self._replay_follows:
            assert isinstance(self._last_obs, np.ndarray)
            replay.begin(self._last_obs)
            self._replay_follows = True
        self._anneal()
        return total_timesteps, callback

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Greedy actions, or epsilon-greedy ones with a coin for each observation.

        Args:
            observation: uint8 (channels, height, width), or a batch of them.
            state: handed back: there is no recurrence.
            episode_start: unused.
            deterministic: greedy; otherwise with epsilon ``exploration_rate``.

        Returns:
            Actions int64, () or (batch,), and ``state``.
        """
        self.finish_update()
        actions, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            coins = self._predict_rng.random(actions.shape) < self.exploration_rate
            random = self._predict_rng.integers(self.action_space.n, size=actions.shape)
            actions = np.where(coins, random, actions)
        return actions, state

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Writes a zip, as stable-baselines3's, of the agent as it stands between two updates."""
        self.finish_update()
        super().save(path, exclude, include)

    def _excluded_save_params(self) -> list[str]:
        # Rebuilt when a saved model is loaded: a thread, for one, cannot be pickled.
        networks = ["_actor", "_target", "batch_norm_stats", "batch_norm_stats_target"]
        others = ["_loss_sum", "_returns", "_steps", "_background", "_spare_cores"]
        return [*super()._excluded_save_params(), *others, *networks]
