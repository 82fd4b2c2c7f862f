"""How many steps a training takes, and whether it learns in them."""

from __future__ import annotations

from agents.config import TrainConfig


def notes_on_length(config: TrainConfig, step: int = 0, stored_steps: int = 0) -> list[str]:
    """Lines about a training, from ``step`` on, whose real length may surprise its user.

    ``stored_steps`` are the environment steps in DQN's replay at that step.
    """
    if step >= config.total_steps:
        return []
    section, end = config.hyperparameters, last_step(config, step)
    notes = section.notes(end, step, stored_steps)
    # A few more steps at the end of a long run need no line.
    if end > 1.01 * config.total_steps:
        unit = f"{section.round_name} of {section.round_steps(config.num_envs):,} steps"
        notes.append(
            f"this training takes {end:,} steps, not {config.total_steps:,}: it learns in whole"
            f" {unit}; smaller {section.round_option} or --num-envs make them shorter"
        )
    return notes


def last_step(config: TrainConfig, step: int = 0) -> int:
    """The step at which a training that begins at ``step`` ends: at least ``total_steps``."""
    return config.hyperparameters.last_step(config.total_steps, config.num_envs, step)
