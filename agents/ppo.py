"""PPO behind stable-baselines3's face: its constructor and callbacks, our collection and update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional

from agents.acting import InferenceCopy
from agents.compilation import Compiled
from agents.policies import PixelActorCriticPolicy
from agents.rollout import FrameRollout, RolloutBatch
from agents.support import check_images_and_discrete_actions, raise_if_not_finite
from envs.errors import UserError
from envs.stacking import FrameStacking, frame_stacking

METRICS = (
    "loss",
    "policy_gradient_loss",
    "value_loss",
    "entropy_loss",
    "approx_kl",
    "clip_fraction",
)


class PPO(SB3PPO):
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

    With precision "fp32", uncompiled, one update equals stable-baselines3's own to rounding on the
    same batch.

    Args:
        compile_update: whether the loss of a minibatch is compiled; see
            :class:`~agents.compilation.Compiled`.

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
                _check_minibatches(n_envs, n_steps, batch_size, normalize_advantage)
        self.compile_update = compile_update
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
        _check_minibatches(self.n_envs, self.n_steps, self.batch_size, self.normalize_advantage)
        self.rollout_buffer_class = FrameRollout  # type: ignore[assignment]
        self.rollout_buffer_kwargs = {"stacking": self._stacking()}
        super()._setup_model()
        self._actor = InferenceCopy(self.policy)
        self._minibatch_loss: Callable[..., tuple[torch.Tensor, torch.Tensor]] = (
            Compiled(self._loss, "update") if self.compile_update else self._loss
        )

    def _excluded_save_params(self) -> list[str]:
        # Rebuilt when a saved model is loaded: compiled code cannot be pickled.
        return [*super()._excluded_save_params(), "_minibatch_loss", "_actor"]

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
        stacking = self._stacking()
        if stacking != self.rollout_buffer.stacking:
            self.rollout_buffer = FrameRollout(
                self.n_steps,
                self.observation_space,  # type: ignore[arg-type]
                self.action_space,  # type: ignore[arg-type]
                self.device,
                self.gae_lambda,
                self.gamma,
                self.n_envs,
                stacking=stacking,
            )

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
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        steps_learned = self.num_timesteps
        # The first observation brings its whole stack along, fresh or not.
        stack_starts = np.ones(env.num_envs, dtype=bool)
        callback.on_rollout_start()

        # After the callback, which may have changed the policy or put another in its place.
        if self._actor.source is not self.policy:
            self._actor = InferenceCopy(self.policy)
        self._actor.follow()
        acting = self._actor.network
        for _ in range(n_rollout_steps):
            observations = torch.as_tensor(self._last_obs, device=self.device)
            with torch.no_grad():
                actions, values, log_probs = acting(observations)
            new_obs, rewards, dones, infos = env.step(actions.cpu().numpy())

            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                self.num_timesteps = steps_learned
                # The games have moved on, and a later learning goes on from where they stand.
                self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]
                return False

            self._update_info_buffer(infos, dones)
            self._bootstrap_truncated(rewards, dones, infos)
            rollout_buffer.add(
                observations,
                stack_starts,
                actions,
                rewards,
                self._last_episode_starts,  # type: ignore[arg-type]
                values,
                log_probs,
            )
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones
            stack_starts = _fresh_stacks(dones, infos)

        with torch.no_grad():
            new_observations = torch.as_tensor(new_obs, device=self.device)
            values = acting.predict_values(new_observations)
        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)

        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _bootstrap_truncated(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> None:
        """Adds the value of what a time limit cut off to the reward before it (Pardo 2018)."""
        truncated = [i for i in np.flatnonzero(dones) if infos[i].get("TimeLimit.truncated")]
        if not truncated:
            return
        last = np.stack([infos[i]["terminal_observation"] for i in truncated])
        with torch.no_grad():
            observations = torch.as_tensor(last, device=self.device)
            values = self._actor.network.predict_values(observations)
        rewards[truncated] += self.gamma * values.flatten().cpu().numpy()

    def train(self) -> None:
        """Learns ``n_epochs`` times from the rollout, in shuffled minibatches."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip_range = self._scheduled("clip_range", self.clip_range)
        clip_range_vf = None
        if self.clip_range_vf is not None:
            clip_range_vf = self._scheduled("clip_range_vf", self.clip_range_vf)
        ent_coef = self._scheduled("ent_coef", self.ent_coef)

        rollout = self.rollout_buffer
        transitions = rollout.buffer_size * rollout.n_envs
        metrics: list[torch.Tensor] = []
        stopped = False
        for _ in range(self.n_epochs):
            epoch_began = len(metrics)
            order = torch.randperm(transitions, device=self.device)
            for indices in order.split(self.batch_size):
                loss, minibatch_metrics = self._minibatch_loss(
                    rollout.batch(indices), clip_range, clip_range_vf, ent_coef
                )
                metrics.append(minibatch_metrics)
                if self.target_kl is not None:
                    approx_kl = minibatch_metrics[METRICS.index("approx_kl")]
                    if stopped := bool(approx_kl > 1.5 * self.target_kl):
                        break
                self.policy.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
            self._n_updates += 1
            if stopped:
                break

        self._record_training(torch.stack(metrics), len(metrics) - epoch_began)

    def _scheduled(self, name: str, value: Any) -> torch.Tensor:
        if callable(value):
            value = value(self._current_progress_remaining)
            self.logger.record(f"train/{name}", value)
        # As a tensor: a float that changes would be compiled anew each time.
        return torch.tensor(value, device=self.device)

    def _loss(
        self,
        batch: RolloutBatch,
        clip_range: torch.Tensor,
        clip_range_vf: torch.Tensor | None,
        ent_coef: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The clipped surrogate objective (Schulman et al. 2017, equation 9), and ``METRICS``."""
        values, log_prob, entropy = self.policy.evaluate_actions(batch.observations, batch.actions)
        values = values.flatten()
        advantages = batch.advantages
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

        log_ratio = log_prob - batch.old_log_prob
        ratio = log_ratio.exp()
        clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
        policy_loss = -torch.min(advantages * ratio, advantages * clipped_ratio).mean()

        if clip_range_vf is not None:
            change = (values - batch.old_values).clamp(-clip_range_vf, clip_range_vf)
            values = batch.old_values + change
        value_loss = functional.mse_loss(batch.returns, values)
        entropy_loss = -entropy.mean()
        loss = policy_loss + ent_coef * entropy_loss + self.vf_coef * value_loss

        with torch.no_grad():
            # The low-variance estimator of the divergence: (r - 1) - log r.
            approx_kl = (ratio - 1 - log_ratio).mean()
            clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
            metrics = (loss, policy_loss, value_loss, entropy_loss, approx_kl, clip_fraction)
            return loss, torch.stack(metrics)

    def _record_training(self, metrics: torch.Tensor, last_epoch: int) -> None:
        """Logs means over an update's minibatches, (minibatches, ``METRICS``).

        Those of ``approx_kl`` are over the last epoch's, as in stable-baselines3.
        """
        means = metrics.mean(dim=0)
        kl = METRICS.index("approx_kl")
        means[kl] = metrics[-last_epoch:, kl].mean()
        rollout = self.rollout_buffer
        unexplained = (rollout.returns - rollout.values).var() / rollout.returns.var()
        # The first wait for the device in an update.
        told = torch.cat([means, (1 - unexplained)[None]]).tolist()
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
        sums = [parameter.detach().sum() for parameter in self.policy.parameters()]
        raise_if_not_finite(torch.stack(sums).sum().item(), self.num_timesteps)


def _fresh_stacks(dones: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
    """Which observations begin a fresh stack: those after a real end, not after a lost life."""
    starts = dones.copy()
    for i in np.flatnonzero(dones):
        starts[i] = not infos[i].get("life_loss", False)
    return starts


def _check_minibatches(n_envs: int, n_steps: int, batch_size: int, normalize: bool) -> None:
    for name, value in (("n_steps", n_steps), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    if normalize and batch_size == 1:
        raise UserError(
            "batch_size 1 has no spread to normalize advantages by: it must be at least 2,"
            " or normalize_advantage off"
        )
    rollout = n_envs * n_steps
    if rollout % batch_size:
        raise UserError(
            f"batch_size {batch_size} does not divide the rollout of {rollout} steps"
            f" ({n_envs} environments x {n_steps} steps);"
            f" the nearest that does is {_nearest_divisor(rollout, batch_size)}"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    divisors = (d for d in range(1, number + 1) if number % d == 0)
    return min(divisors, key=lambda divisor: (abs(divisor - wanted), divisor))
