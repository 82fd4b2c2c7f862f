"""PQN behind stable-baselines3's face."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import CnnPolicy

from agents.collect.actor import RolloutActor, make_actor
from agents.collect.exploration import EpsilonGreedy, explored
from agents.networks.policies import PixelQNetwork
from agents.on_policy.agent import OnPolicyAgent
from agents.on_policy.checks import check_minibatches
from agents.pqn.encoders import default_encoder_options
from agents.pqn.learner import PQNLearner
from agents.pqn.policy import GreedyPolicy, PixelPQNPolicy
from agents.sb3.arguments import arguments_for, checked_device
from agents.sb3.environments import make_checked_env, with_encoder_options


class PQN(OnPolicyAgent[PixelQNetwork]):
    """Parallelised Q-network (Gallici et al. 2024) from pixels.

    Q-learning without a replay and without a target network ("Simplifying deep temporal difference
    learning"): many environments act epsilon-greedily, and each rollout is learned from in epochs
    of minibatches, towards lambda returns of the Q values that were computed while acting. Layer
    normalisation in the encoder keeps it stable: an encoder with the option ``norm`` has
    "layer_channels" by default, as in the authors' code, unless it is given pretrained weights.

    Arguments and defaults are named as stable-baselines3's; the values are the authors' for Atari
    games, where they use 128 environments. Callbacks, ``predict``, ``save`` and ``load`` are those
    of :class:`agents.PPO`, and so is all that its documentation says of frames, stopping, groups of
    environments, ``compile_update``, ``overlap`` and ``cuda_graphs``. Beside that:

    - The policy is ``"CnnPolicy"``, our :class:`~agents.pqn.policy.PixelPQNPolicy`; its optimizer
      is RAdam.
    - Every environment flips its own epsilon coin, in training from the agent's own generator.
      Epsilon changes between rollouts.
    - Where a time limit cuts an episode off, the greatest Q value of its last observation stands
      for what would have followed. The authors' code and CleanRL's treat it as an end.

    Args:
        q_lambda: lambda of the returns, 0 to 1.

    Attributes:
        exploration_limit: upper bound of epsilon; in an extended run, epsilon where it continues.

    Raises:
        UserError: an argument is not supported, or minibatches do not divide the rollout.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CnnPolicy": PixelPQNPolicy}
    replaced_policy = CnnPolicy
    policy: PixelPQNPolicy  # type: ignore[assignment]
    action_space: spaces.Discrete
    exploration_limit: float = 1.0
    _learner: PQNLearner | None

    def __init__(
        self,
        policy: str | type[PixelPQNPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 2.5e-4,
        n_steps: int = 32,
        batch_size: int = 128,
        n_epochs: int = 2,
        gamma: float = 0.99,
        q_lambda: float = 0.65,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.001,
        max_grad_norm: float = 10,
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
        if env is not None or _init_setup_model:
            env = make_checked_env(env, verbose)
            if _init_setup_model:
                n_envs = env.num_envs if isinstance(env, VecEnv) else 1
                check_minibatches(n_envs, n_steps, batch_size)
        self.batch_size, self.n_epochs = batch_size, n_epochs
        self.exploration_fraction = exploration_fraction
        self.exploration_initial_eps = exploration_initial_eps
        self.exploration_final_eps = exploration_final_eps
        self.compile_update, self.overlap = compile_update, overlap
        self.cuda_graphs = cuda_graphs
        device = checked_device(device)
        # Those of stable-baselines3's base class that PQN has not.
        unused = {"ent_coef": 0.0, "vf_coef": 0.0, "use_sde": False, "sde_sample_freq": -1}
        arguments = arguments_for(OnPolicyAlgorithm, {**locals(), **unused, "gae_lambda": q_lambda})
        super().__init__(**arguments)

    @property
    def q_lambda(self) -> float:
        """Lambda of the returns."""
        return self.gae_lambda

    def _setup_model(self) -> None:
        # Not stable-baselines3's own, which would make its own rollout here.
        self._check_spaces_and_policy()
        self._check_sizes()
        self.policy_kwargs = with_encoder_options(self.policy_kwargs, default_encoder_options)
        self._set_up_policy()
        self.exploration_rate = self.exploration_initial_eps
        self._set_up_updates(self.policy.q_net)
        self._set_up_storage()

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds everything random: torch, numpy, the environments, and exploration."""
        super().set_random_seed(seed)
        exploring, predicting = np.random.SeedSequence(seed).spawn(2)
        n_actions = int(self.action_space.n)
        self.exploration = EpsilonGreedy(n_actions, exploring)
        self._predict_exploration = EpsilonGreedy(n_actions, predicting)

    @property
    def _network(self) -> PixelQNetwork:
        return self.policy.q_net

    def _make_actor(self, network: PixelQNetwork) -> RolloutActor:
        def draw(count: int) -> np.ndarray:
            return self.exploration.draw((count,), self.exploration_rate)

        codec = self.rollout_buffer.codec
        return make_actor(GreedyPolicy(network), codec, self.device, self.cuda_graphs, draw)

    def _prepare_rollout(self) -> None:
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        rate = self.scheduled_epsilon(self._current_progress_remaining, self._total_timesteps)
        self.exploration_rate = min(rate, self.exploration_limit)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def scheduled_epsilon(self, progress_remaining: float, total_timesteps: int) -> float:
        """Epsilon where a run has a share of ``progress_remaining`` left, whatever its length."""
        bounds = self.exploration_initial_eps, self.exploration_final_eps
        return LinearSchedule(*bounds, self.exploration_fraction)(progress_remaining)

    def _present_learner(self) -> PQNLearner:
        learner, settings = self._learner, (self.policy, self.max_grad_norm)
        if learner is None or (learner.policy, learner.max_grad_norm) != settings:
            learner = PQNLearner(*settings, compiled=self.compile_update, graphs=self.cuda_graphs)
        return learner

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Greedy actions int64, or with epsilon ``exploration_rate`` if not ``deterministic``."""
        actions, state = super().predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            actions = explored(self._predict_exploration, actions, self.exploration_rate)
        return actions, state

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "exploration", "_predict_exploration"]
