"""ale-py's C++ vector environment of Atari games as a stable-baselines3 VecEnv."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from envs.checks import ObservationColour, check_actions, check_count, check_observation
from envs.episodes import EpisodeVecEnv
from envs.machine.cores import usable_cores
from envs.protocol import AtariProtocol, apply_training_rules, get_protocol
from envs.registry import atari_rom


class AtariVecEnv(EpisodeVecEnv):
    """Several copies of one game, emulated by C++ threads.

    Observations are uint8 (num_envs, frame_stack * C, obs_size, obs_size), oldest frame first, with
    C = 1 for grey and 3 for colour; a game starts with zero frames and its first frame. Each step
    returns new arrays. Rewards are float32. A game that ends restarts in the same step.

    ``infos[i]`` holds ``lives`` (of the returned observation) and:

    - if ``dones[i]``: ``terminal_observation``, the last observation of the episode, and
      ``TimeLimit.truncated``, true if only the step limit ended it (its newest frame then lacks the
      emulator's last picture, as in Gymnasium's ``AtariPreprocessing``);
    - ``life_loss``: true, and present only if a lost life ended the episode. The game and its stack
      of frames continue: the next observation is not the first of a game;
    - ``episode``: only at the end of a game: ``r`` its unclipped return, ``l`` its length in agent
      steps, ``t`` seconds since this object was created. SB3's ``Monitor`` would report the same
      below clipping and life losses. ``env_is_wrapped(Monitor)`` is therefore true, and
      ``evaluate_policy`` and ``EvalCallback`` report whole games.

    The games cannot be rendered; ``envs.films.camera`` films them.

    Attributes:
        env_id: the game.
        protocol: how it is played.
        training: whether the protocol's rules for training hold.
    """

    render_mode: str | None = None

    def __init__(
        self,
        env_id: str = "ALE/Pong-v5",
        num_envs: int = 8,
        *,
        protocol: str | AtariProtocol = "classic",
        training: bool = True,
        obs: ObservationColour = "grey",
        obs_size: int = 84,
        frame_stack: int = 4,
        seed: int = 0,
        num_threads: int = 0,
        max_episode_steps: int | None = None,
    ) -> None:
        """Starts the emulators.

        Args:
            env_id: a game, as ``ALE/<Game>-v5``.
            num_envs: number of games played side by side.
            protocol: "classic", "sticky" or another protocol.
            training: False disables the protocol's rules for training: episodes that end at a lost
                life, and clipped rewards.
            obs: "grey" or "rgb".
            obs_size: height and width in pixels.
            frame_stack: frames in one observation.
            seed: seed of the next ``reset``; each game gets its own seed derived from it.
            num_threads: emulator threads; 0 takes one per game, at most one per usable core.
            max_episode_steps: agent steps after which a game is truncated; None takes the
                protocol's.

        Raises:
            UserError: a value is not valid.
        """
        rom = atari_rom(env_id)
        num_envs = check_count("num_envs", num_envs, 1)
        channels = check_observation(obs, obs_size, frame_stack)
        check_count("num_threads", num_threads, 0)
        self.env_id = env_id
        self.protocol = get_protocol(protocol)
        self.training = training
        if max_episode_steps is None:
            max_episode_steps = self.protocol.max_episode_steps
        self.max_episode_steps = check_count("max_episode_steps", max_episode_steps, 1)
        # Life losses and clipping are handled here. The emulator's `episodic_life` restarts a game
        # at each lost life, and its clipped rewards hide the true returns.
        self._emulator: AtariVectorEnv | None = AtariVectorEnv(
            rom,
            num_envs,
            num_threads=num_threads or min(num_envs, usable_cores()),
            max_num_frames_per_episode=self.max_episode_steps * self.protocol.frame_skip,
            repeat_action_probability=self.protocol.repeat_action_probability,
            full_action_space=self.protocol.full_action_space,
            autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
            img_height=int(obs_size),
            img_width=int(obs_size),
            grayscale=obs == "grey",
            stack_num=int(frame_stack),
            frameskip=self.protocol.frame_skip,
            noop_max=self.protocol.noop_max,
            use_fire_reset=self.protocol.use_fire_reset,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
        )
        actions = self._emulator.single_action_space
        assert isinstance(actions, spaces.Discrete)
        super().__init__(num_envs, int(actions.n), channels, obs_size, frame_stack)
        self._lives = np.zeros(num_envs, dtype=np.int32)
        self._stepping = False
        self.seed(seed)

    def reset(self) -> np.ndarray:
        """Restarts all games and returns their observations.

        The seeds of the last ``seed`` call are used once; a further ``reset`` draws from the games'
        own generators. An unfinished step is finished first, and its result dropped.
        """
        emulator = self._open_emulator()
        if self._stepping:
            self._receive(emulator)
        seeds = np.array([-1 if seed is None else seed for seed in self._seeds], dtype=np.int64)
        observations, info = emulator.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        self._started = True
        self._lives = info["lives"]
        self._returns[:] = 0
        self._lengths[:] = 0
        self.reset_infos = [{"lives": lives} for lives in self._lives.tolist()]
        return self._channels_first(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Starts a step with actions, integers (num_envs,) below ``action_space.n``.

        Raises:
            UserError: the actions are not valid. None was sent, and the games can continue.
            RuntimeError: called before ``reset``, or twice without ``step_wait``.
        """
        emulator = self._open_emulator()
        self._check_started()
        if self._stepping:
            raise RuntimeError("step_async() was called twice without step_wait()")
        emulator.send(check_actions(actions, self.num_envs, self._num_actions))
        self._stepping = True

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Waits for the games.

        Returns:
            observations, rewards float32 (num_envs,), dones bool (num_envs,) and a new info for
            each game, as described for the class.
        """
        if not self._stepping:
            # The emulator would wait for ever.
            raise RuntimeError("step_wait() was called without step_async()")
        emulator = self._open_emulator()
        observations, rewards, terminated, truncated, info = self._receive(emulator)
        observations = self._channels_first(observations)
        lives = info["lives"]
        infos: list[dict[str, Any]] = [{"lives": left} for left in lives.tolist()]
        self._returns += rewards
        self._lengths += 1

        ended = terminated | truncated
        lost_life = lives < self._lives
        self._lives = lives
        for i in np.flatnonzero(ended).tolist():
            final = self._channels_first(info["final_obs"][i : i + 1])[0]
            self._report_end(i, infos[i], final, truncated=not terminated[i])
            self.reset_infos[i] = {"lives": infos[i]["lives"]}
        rewards = rewards.astype(np.float32)
        dones = ended
        if self.training:
            rewards, dones = apply_training_rules(
                self.protocol, observations, rewards, ended, lost_life, infos
            )
        return observations, rewards, dones, infos

    def close(self) -> None:
        """Stops the emulator's threads; closing twice does nothing."""
        if self._emulator is not None and self._stepping:
            self._receive(self._emulator)
        self._emulator = None

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of this object for each game: games have no attributes of their own."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Not supported, since the games share one configuration in C++."""
        raise NotImplementedError(f"cannot set {attr_name!r}: Atari games share one configuration")

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Not supported, since the games are not Python objects."""
        raise AttributeError(f"the games of {self.env_id} are in C++ and have no {method_name}()")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for SB3's ``Monitor``, since this class makes its reports."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def _open_emulator(self) -> AtariVectorEnv:
        if self._emulator is None:
            raise RuntimeError("this AtariVecEnv was closed")
        return self._emulator

    def _receive(self, emulator: AtariVectorEnv) -> Any:
        # Set before the wait: Ctrl-C during it is raised at its end, and a second wait, as in
        # close(), would last for ever.
        self._stepping = False
        return emulator.recv()

    def _channels_first(self, observations: np.ndarray) -> np.ndarray:
        """Colour (n, stack, height, width, 3) -> (n, stack * 3, height, width); grey unchanged."""
        if observations.ndim == 4:
            return observations
        n, _, height, width, _ = observations.shape
        return observations.transpose(0, 1, 4, 2, 3).reshape(n, -1, height, width)
