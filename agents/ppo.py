"""PPO behind stable-baselines3's face: its constructor and callbacks, our collection and update."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv

from agents.acting import InferenceCopy, Player, make_player
from agents.background import Background
from agents.policies import PixelActorCriticPolicy
from agents.ppo_update import METRICS, Learner, Objective, UpdateReport, check_minibatches
from agents.rollout import FrameRollout
from agents.support import (
    LearningRateFactors,
    check_images_and_discrete_actions,
    raise_if_not_finite,
)
from agents.transfer import frozen_state, unfreeze_when_due, without_weights
from envs.errors import UserError
from envs.stacking import FrameStacking, frame_stacking
from rlcnn.devices import use_threads


class PPO(LearningRateFactors, SB3PPO):
    """Proximal policy optimisation (Schulman et al. 2017) from pixels.

    Takes stable-baselines3's arguments in its order, and keeps its callbacks, ``predict``, ``save``
    and ``load`` (its zip pickles: :mod:`agents.checkpoint` writes files that do not). What differs:

    - Observations are uint8 images, actions discrete; the policy is ``"CnnPolicy"``, our
      :class:`~agents.policies.PixelActorCriticPolicy`, whose encoder is chosen by
      ``policy_kwargs=dict(features_extractor_kwargs=dict(encoder="impala"))`` and whose precision
      by ``policy_kwargs=dict(precision="bf16")``.
    - Each frame is stored once, on the training device (:class:`~agents.rollout.FrameRollout`).
    - ``ent_coef`` may be a schedule, too, as ``learning_rate`` and ``clip_range`` are.
    - A minibatch that does not divide the rollout is refused rather than truncated.
    - What a callback does to the policy inside a rollout is acted by from the next one on, with
      precision "bf16".
    - When a callback stops training inside a rollout, its steps, never learned from, are not
      counted: ``num_timesteps`` returns to its value at the last update.
    - Callbacks find no ``obs_tensor``, ``clipped_actions`` or ``iteration`` among their locals.

    With precision "fp32", uncompiled, one update equals stable-baselines3's own to rounding on the
    same batch.

    With ``overlap``, a callback that waits for the update under way (for a checkpoint or a film)
    has the rollout that follows played by its outcome, and so changes what is learned; and with an
    encoder that draws random numbers in training, such as by dropout, two runs of one seed differ.

    Args:
        compile_update: whether the loss of a minibatch is compiled; see
            :class:`~agents.compilation.Compiled`.
        overlap: whether a rollout is collected while the one before is learned from, so that
            actions come from a policy one update older (the probabilities that PPO compares with
            are those it acted by). ``on_rollout_start`` then fires while the update is under way:
            a callback that looks at the policy calls :meth:`finish_update` first, as ``predict``,
            ``save`` and ``learn``'s end do. Two rollouts are held in memory.
        cuda_graphs: whether, on a GPU, what is done over and over is captured as a graph and
            replayed (:class:`~agents.graphs.Graphed`): acting, and a minibatch's update, though
            not with ``target_kl``, which asks the device about each of them. The first updates, in
            which this happens, are not overlapped.

    Raises:
        UserError: For what is not supported: generalised state-dependent exploration, other
            spaces, other buffers, normalising wrappers, minibatches that do not divide.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CnnPolicy": PixelActorCriticPolicy}
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
        if use_sde:
            raise UserError("use_sde is not supported: it explores continuous actions")
        if rollout_buffer_class not in (None, FrameRollout) or rollout_buffer_kwargs:
            raise UserError("rollout_buffer_class is not supported: frames are stored by our own")
        if env is not None:
            # Before stable-baselines3 asserts, or warns of, what is refused here in one line.
            env = maybe_make_env(env, verbose)
            vec_env = env if isinstance(env, VecEnv) else None
            check_images_and_discrete_actions(env.observation_space, env.action_space, vec_env)
            if _init_setup_model:
                n_envs = vec_env.num_envs if vec_env else 1
                check_minibatches(n_envs, n_steps, batch_size, normalize_advantage)
        self.compile_update, self.overlap = compile_update, overlap
        self.cuda_graphs = cuda_graphs
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,  # type: ignore[arg-type]
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            target_kl=target_kl,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        check_images_and_discrete_actions(self.observation_space, self.action_space, self.env)
        check_minibatches(self.n_envs, self.n_steps, self.batch_size, self.normalize_advantage)
        self.rollout_buffer_class = FrameRollout  # type: ignore[assignment]
        self.rollout_buffer_kwargs = {"stacking": self._stacking()}
        super()._setup_model()
        self.policy_kwargs = without_weights(self.policy_kwargs)
        self._actor = InferenceCopy(self.policy, apart=self.overlap)
        self._set_up_storage()
        self._background: Background[UpdateReport] | None = None
        if self.overlap:
            threads = torch.get_num_threads()
            # What float32 learns must not depend on when the rollout beside it was over.
            awaited = None if self.policy.precision == "fp32" else threads
            self._background = Background(self.device, max(1, threads - 1), awaited)

    def _excluded_save_params(self) -> list[str]:
        # Rebuilt when a saved model is loaded: neither compiled code nor a thread can be pickled.
        rebuilt = [
            "_learner",
            "_actor",
            "_background",
            "_spare_rollout",
            "_player",
            "_seen_by",
            "_begun",
        ]
        return [*super()._excluded_save_params(), *rebuilt]

    def _stacking(self) -> FrameStacking:
        if self.env is not None:
            return frame_stacking(self.env)
        # Loaded without an environment: right for any, until set_env() brings one that says more.
        return FrameStacking(depth=1, channels=self.observation_space.shape[0])  # type: ignore[index]

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Goes on in another environment of the same spaces and number, however it stacks frames.

        Raises:
            UserError: The environment's stacks do not make its observations.
        """
        super().set_env(env, force_reset)
        if self._stacking() != self.rollout_buffer.stacking:
            self.finish_update()
            self._set_up_storage()

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
        self._player: Player | None = None

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
            UserError: the loss or a parameter is no longer a finite number.
        """
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        assert self.env is not None
        callback.on_training_start(locals(), globals())
        iteration = 0
        threads = torch.get_num_threads()
        if self.overlap:
            # The others are the update's.
            torch.set_num_threads(1)
        try:
            while self.num_timesteps < total_timesteps:
                if not self.collect_rollouts(self.env, callback, self.rollout_buffer, self.n_steps):
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
        # The first observation brings its whole stack along, fresh or not.
        stack_starts = np.ones(env.num_envs, dtype=bool)
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
        acting = self._actor.network
        if self._player is None or self._player.policy is not acting:
            stored = rollout_buffer.stored
            self._player = make_player(acting, stored, self.device, self.cuda_graphs)
        player = self._player
        assert isinstance(self._last_obs, np.ndarray)
        player.begin(self._last_obs)
        with use_threads(player.threads):
            for n_steps in range(n_rollout_steps):
                actions = player.act()
                env.step_async(actions)
                # While the games are played.
                rollout_buffer.store(
                    player.observations,
                    stack_starts,
                    player.actions,
                    player.values,
                    player.log_probs,
                )
                # As callbacks find them: the player's own are those of the next step by then.
                values = rollout_buffer.values[n_steps][:, None]
                log_probs = rollout_buffer.log_probs[n_steps]
                new_obs, rewards, dones, infos = env.step_wait()
                assert isinstance(new_obs, np.ndarray)
                truncated, beyond = self._values_beyond(player, dones, infos)
                stack_starts = _fresh_stacks(dones, infos)
                # Before the rest, which the host does while a GPU is acting.
                player.look(new_obs, stack_starts)

                self.num_timesteps += env.num_envs
                callback.update_locals(locals())
                if not callback.on_step():
                    self.num_timesteps = steps_learned
                    # The games have moved on, and a later learning goes on from where they stand.
                    self._last_obs, self._last_episode_starts = new_obs, dones
                    return False

                self._update_info_buffer(infos, dones)
                rewards[truncated] += self.gamma * beyond
                rollout_buffer.add(rewards, self._last_episode_starts)  # type: ignore[arg-type]
                self._last_obs = new_obs
                self._last_episode_starts = dones

        rollout_buffer.compute_returns_and_advantage(last_values=player.values_here(), dones=dones)

        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    @staticmethod
    def _values_beyond(
        player: Player, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which environments a time limit cut off, and the value of what it cut (Pardo 2018)."""
        truncated = [i for i in np.flatnonzero(dones) if infos[i].get("TimeLimit.truncated")]
        if not truncated:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        last = np.stack([infos[i]["terminal_observation"] for i in truncated])
        envs = np.array(truncated)
        return envs, player.values_of_last(last, envs)

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
        ready = learner.ready(rollout, self.batch_size) and self._player_ready
        if self._background is None or not ready:
            # While something is captured as a graph, nothing else may go on.
            self._record_training(update())
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
    def _player_ready(self) -> bool:
        return self._player is None or self._player.ready

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

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions int64 of uint8 observations, as stable-baselines3's; by all that was learned."""
        self.finish_update()
        return super().predict(observation, state, episode_start, deterministic)

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Writes a zip, as stable-baselines3's, of the agent as it stands between two updates."""
        self.finish_update()
        super().save(path, exclude, include)

    def check_finite(self) -> None:
        """Looks at every parameter; to be called before anything of them is saved.

        Raises:
            UserError: one of them is NaN or infinite.
        """
        self.finish_update()
        sums = [parameter.detach().sum() for parameter in self.policy.parameters()]
        raise_if_not_finite(torch.stack(sums).sum().item(), self.num_timesteps)


def _fresh_stacks(dones: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
    """Which observations begin a fresh stack: those after a real end, not after a lost life."""
    starts = dones.copy()
    for i in np.flatnonzero(dones):
        starts[i] = not infos[i].get("life_loss", False)
    return starts
