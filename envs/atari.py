"""ale-py's C++ vector of Atari games, spoken to as a stable-baselines3 VecEnv."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from envs.checks import (
    ObservationColour,
    check_actions,
    check_count,
    check_observation,
    check_seed,
    derive_seeds,
)
from envs.machine.cores import usable_cores
from envs.protocol import AtariProtocol, get_protocol
from envs.registry import atari_rom
from envs.stacking import FrameStacking


class AtariVecEnv(VecEnv):
    """Many games of one kind, emulated by C++ threads.

    Observations are uint8 (num_envs, frame_stack * C, obs_size, obs_size), oldest frame first, with
    C = 1 for grey and 3 for colour; a game starts with zero frames and its first frame. Each step
    returns fresh arrays. Rewards are float32. An ended game starts anew within the same step.

    What ``infos[i]`` holds beside ``lives`` (those of the returned observation):

    - where ``dones[i]``: ``terminal_observation``, the observation that the ended episode ended
      with, and ``TimeLimit.truncated``, true where the step limit alone ended it (the newest frame
      then lacks the emulator's very last picture, as in Gymnasium's ``AtariPreprocessing``);
    - ``life_loss``: present, and true, where the episode ended by a lost life only. The game goes
      on, and so does its stack of frames: the next observation is not a fresh start;
    - ``episode``: at a real end only: ``r`` the unclipped return of the whole game, ``l`` its
      length in agent steps, ``t`` seconds since this object was made. SB3's ``Monitor`` would
      report the same below clipping and life losses, and ``env_is_wrapped(Monitor)`` therefore
      says true: ``evaluate_policy`` and ``EvalCallback`` then report whole games.

    The games cannot be rendered: film them with ``envs.films.camera``.

    Attributes:
        frame_stacking: how observations are made of frames.
        env_id: the game.
        protocol: how it is played.
        training: whether the protocol's training-only rules hold.
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
        """Start the emulators.

        Args:
            env_id: a game, as ``ALE/<Game>-v5``.
            num_envs: games played side by side.
            protocol: "classic", "sticky" or a protocol of one's own.
            training: False leaves out what only training does: episodes that end at a lost life,
                and clipped rewards.
            obs: "grey" or "rgb".
            obs_size: height and width in pixels.
            frame_stack: frames in one observation.
            seed: seeds the next ``reset``; each game gets its own seed derived from it.
            num_threads: emulator threads; 0 takes one per game, at most one per usable core.
            max_episode_steps: agent steps after which a game is truncated; None takes the
                protocol's.

        Raises:
            UserError: a value is not valid; the line names it and what was expected.
        """
        rom = atari_rom(env_id)
        num_envs = check_count("num_envs", num_envs, 1)
        channels = check_observation(obs, obs_size, frame_stack)
        check_count("num_threads", num_threads, 0)
        self.env_id = env_id
        self.protocol = get_protocol(protocol)
        self.training = training
        self.frame_stacking = FrameStacking(depth=frame_stack, channels=channels, padding="zeros")
        if max_episode_steps is None:
            max_episode_steps = self.protocol.max_episode_steps
        self.max_episode_steps = check_count("max_episode_steps", max_episode_steps, 1)
        # Life losses and clipping are done here and not in the emulator: its `episodic_life` starts
        # a new game at each lost life, and clipped rewards hide the true returns.
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
        self._num_actions = int(actions.n)
        shape = (frame_stack * channels, obs_size, obs_size)
        super().__init__(
            num_envs,
            spaces.Box(0, 255, shape, np.uint8),
            spaces.Discrete(self._num_actions),
        )
        self._lives = np.zeros(num_envs, dtype=np.int32)
        self._returns = np.zeros(num_envs, dtype=np.float64)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._started = False
        self._stepping = False
        self._created = time.perf_counter()
        self.seed(seed)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next ``reset``.

        Args:
            seed: 0 <= seed < 2**31; None draws one from numpy's global generator.

        Returns:
            The seed of each game.

        Raises:
            UserError: the seed is not in that range.
        """
        if seed is None:
            seed = int(np.random.randint(2**31 - 1))
        self._seeds = list(derive_seeds(check_seed(seed), self.num_envs))
        return self._seeds

    def reset(self) -> np.ndarray:
        """Start all games anew and return their observations.

        Uses the seeds of the last ``seed`` call once; a further ``reset`` goes on drawing from the
        games' own generators. A step under way is finished first and its result dropped.
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
        """Set the games going.

        Args:
            actions: integers (num_envs,), each below ``action_space.n``.

        Raises:
            UserError: the actions are not such; nothing was sent and the games can go on.
            RuntimeError: called before ``reset``, or twice without ``step_wait``.
        """
        emulator = self._open_emulator()
        if not self._started:
            raise RuntimeError("call reset() before the first step")
        if self._stepping:
            raise RuntimeError("step_async() was called twice without step_wait()")
        emulator.send(check_actions(actions, self.num_envs, self._num_actions))
        self._stepping = True

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Wait for the games.

        Returns:
            observations, rewards float32 (num_envs,), dones bool (num_envs,) and one fresh dict for
            each game, as the class's docstring tells.
        """
        if not self._stepping:
            # Waiting for games that were never sent an action would last for ever.
            raise RuntimeError("step_wait() was called without step_async()")
        emulator = self._open_emulator()
        observations, rewards, terminated, truncated, info = self._receive(emulator)
        observations = self._channels_first(observations)
        lives = info["lives"]
        infos: list[dict[str, Any]] = [{"lives": left} for left in lives.tolist()]
        self._returns += rewards
        self._lengths += 1

        dones = ended = terminated | truncated
        if self.training and self.protocol.terminal_on_life_loss:
            dones = ended | (lives < self._lives)
        self._lives = lives
        for i in np.flatnonzero(dones).tolist():
            if ended[i]:
                final = self._channels_first(info["final_obs"][i : i + 1])[0]
                self._report_end(i, infos[i], final, truncated=not terminated[i])
            else:
                infos[i]["terminal_observation"] = observations[i].copy()
                infos[i]["TimeLimit.truncated"] = False
                infos[i]["life_loss"] = True

        rewards = rewards.astype(np.float32)
        if self.training and self.protocol.clip_rewards:
            np.sign(rewards, out=rewards)
        return observations, rewards, dones, infos

    def close(self) -> None:
        """Stop the emulator's threads; closing twice does nothing."""
        if self._emulator is not None and self._stepping:
            self._receive(self._emulator)
        self._emulator = None

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of this object, once for each game asked for: the games share all of them.

        Raises:
            AttributeError: there is none of that name.
        """
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Not supported: the games live in C++ and share one configuration.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"cannot set {attr_name!r}: Atari games share one configuration")

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Not supported: the games are not Python objects.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(f"the games of {self.env_id} are in C++ and have no {method_name}()")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for SB3's ``Monitor``, whose reports this class makes itself; else false."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def _open_emulator(self) -> AtariVectorEnv:
        if self._emulator is None:
            raise RuntimeError("this AtariVecEnv was closed")
        return self._emulator

    def _receive(self, emulator: AtariVectorEnv) -> Any:
        # Noted before the games are waited for: Ctrl-C meanwhile is raised when the wait is over,
        # and to wait for them once more, as in close(), would last for ever.
        self._stepping = False
        return emulator.recv()

    def _channels_first(self, observations: np.ndarray) -> np.ndarray:
        """Colour (n, stack, height, width, 3) as (n, stack * 3, height, width); grey as it is."""
        if observations.ndim == 4:
            return observations
        n, _, height, width, _ = observations.shape
        return observations.transpose(0, 1, 4, 2, 3).reshape(n, -1, height, width)

    def _report_end(
        self, i: int, info: dict[str, Any], final_observation: np.ndarray, truncated: bool
    ) -> None:
        """Tell of the end of game ``i`` and begin counting the next."""
        # Its own copy: a view would keep the whole batch of final observations alive.
        info["terminal_observation"] = final_observation.copy()
        info["TimeLimit.truncated"] = truncated
        info["episode"] = {
            "r": float(self._returns[i]),
            "l": int(self._lengths[i]),
            "t": round(time.perf_counter() - self._created, 6),
        }
        self.reset_infos[i] = {"lives": info["lives"]}
        self._returns[i] = 0
        self._lengths[i] = 0
