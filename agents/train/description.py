"""A training in a few labelled lines: what is about to learn, and what to do with the result."""

from __future__ import annotations

from agents.config import TrainConfig
from agents.evaluate.evaluation import Evaluation
from agents.evaluate.references import reference_scores
from agents.registry import Agent
from agents.train.builder import describe_storage
from agents.train.checkpoint import encoder_extractor
from agents.train.device_notes import describe_device_use
from envs.errors import in_shell
from envs.registry import find_spec, is_atari
from rlcnn.runs.commands import Facts, script
from rlcnn.runs.directory import RunDirectory


def describe_training(config: TrainConfig, model: Agent) -> Facts:
    """The environment, encoder, algorithm, device and storage of a resolved configuration."""
    env, count = config.env, config.num_envs
    env += "".join(f", {name} {value}" for name, value in config.env_kwargs.items())
    env += "".join(f", {wrapper}" for wrapper in config.env_wrapper)
    if is_atari(find_spec(config.env)):
        env += f", {config.protocol} protocol"
    shape = "x".join(map(str, model.observation_space.shape or ()))
    return [
        ("environment", f"{env}, {count} environment{'s' * (count != 1)}"),
        ("observation", f"{shape} ({config.frame_stack} {config.obs} frames)"),
        ("encoder", _describe_encoder(config, model)),
        (
            "algorithm",
            f"{config.algo.upper()}, preset {config.preset}, {config.total_steps:,} steps",
        ),
        ("device", describe_device_use(config)),
        ("storage", describe_storage(model)),
    ]


def _describe_encoder(config: TrainConfig, model: Agent) -> str:
    options = "".join(f", {name} {value}" for name, value in config.encoder_options.items())
    parts = [f"{config.encoder}{options}"]
    if extractor := encoder_extractor(model):
        parts.append(f"{sum(p.numel() for p in extractor.encoder.parameters()):,} parameters")
        start = extractor.origin.weights if extractor.origin else "random weights"
        parts.append(
            f"{config.mode} from {start}" if config.mode != "frozen" else f"frozen {start}"
        )
    return ", ".join(parts)


def describe_return(result: Evaluation) -> str:
    """Such as ``12.30 (std 4.56, 30 games)``."""
    games = len(result.returns)
    return f"{result.mean_return:.2f} (std {result.std:.2f}, {games} game{'s' * (games != 1)})"


def describe_score(result: Evaluation, config: TrainConfig) -> Facts:
    """The score of an evaluation, beside those of random and human play where they are known."""
    facts = [("mean return", describe_return(result))]
    # The published scores are those of the games as they are.
    if not config.environment.is_changed and (reference := reference_scores(config.env)):
        facts.append(
            ("compare", f"random play {reference.random:g}, human {reference.human:g} (published)")
        )
    return facts


def next_commands(config: TrainConfig, run: RunDirectory) -> Facts:
    """The commands to evaluate and extend a finished run."""
    path, done = in_shell(run.path), int(run.checkpoints()[-1].name)
    longer = 2 * max(config.total_steps, done)
    return [
        ("evaluate", f"{script('evaluate_agent.py')} {path} --episodes 100"),
        ("extend", f"{script('train_agent.py')} --resume {path} --total-steps {longer}"),
    ]
