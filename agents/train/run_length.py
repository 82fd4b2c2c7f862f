"""How many steps a training takes, and whether it learns in them."""

from __future__ import annotations

from agents.config import TrainConfig


def notes_on_length(config: TrainConfig, step: int = 0, stored_steps: int = 0) -> list[str]:
    """Lines about a training whose real length may surprise its user.

    Args:
        config: the training.
        step: where it begins or goes on.
        stored_steps: environment steps in DQN's replay at that step.
    """
    if step >= config.total_steps:
        return []
    notes = []
    end = last_step(config, step)
    if config.algo == "dqn":
        starts = step + max(0, config.dqn.learning_starts - stored_steps)
        if end // config.dqn.train_freq <= starts // config.dqn.train_freq:
            notes.append(
                f"nothing is learned in this training: it ends at step {end:,}, and DQN's updates"
                f" start after step {starts:,} (--dqn.learning-starts"
                f" {config.dqn.learning_starts}). Give more --total-steps, or fewer"
                " --dqn.learning-starts"
            )
    # A few more steps at the end of a long run need no line.
    if end > 1.01 * config.total_steps:
        unit, option = f"rollouts of {rollout_steps(config):,} steps", "--ppo.n-steps"
        if config.algo == "dqn":
            unit, option = f"rounds of {rollout_steps(config):,} steps", "--dqn.train-freq"
        notes.append(
            f"this training takes {end:,} steps, not {config.total_steps:,}: it learns in whole"
            f" {unit}; smaller {option} or --num-envs make them shorter"
        )
    return notes


def rollout_steps(config: TrainConfig) -> int:
    """Environment steps between two updates."""
    if config.algo == "ppo":
        return config.num_envs * config.ppo.n_steps
    return _up(config.dqn.train_freq, config.num_envs)


def last_step(config: TrainConfig, step: int = 0) -> int:
    """The step at which a training that begins at ``step`` ends: at least ``total_steps``."""
    total, num_envs = config.total_steps, config.num_envs
    if config.algo == "ppo":
        return step + _up(total - step, rollout_steps(config))
    end = step + _up(total - step, num_envs)
    frequency = config.dqn.train_freq
    round_end = _up(total, frequency)
    if end - num_envs >= round_end - frequency:
        # The round under way is finished.
        end = step + _up(round_end - step, num_envs)
    return end


def _up(steps: int, unit: int) -> int:
    """``steps`` rounded up to a multiple of ``unit``."""
    return -(-steps // unit) * unit
