"""From a configuration to the environments and the agent that it describes."""

from __future__ import annotations

import math
import shutil
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from agents.config import TrainConfig, read_config
from agents.registry import Agent, algorithm_of
from agents.seeding import derive_seed
from agents.storage.codecs import PixelCodec
from agents.train.checkpoint import POLICY, encoder_extractor, load_policy
from envs.errors import UserError
from envs.groups import GroupedVecEnv
from envs.make import make_vec_env
from rlcnn.accelerate.devices import resolve_device
from rlcnn.accelerate.memory import gigabytes
from rlcnn.encoders.base import size_option
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import disk_errors
from rlcnn.weights.report import LoadReport


def make_train_env(config: TrainConfig) -> VecEnv:
    """The environments to train in."""
    num_envs = config.num_envs // config.env_groups
    workers = math.ceil(config.env_workers / config.env_groups)
    make_group = partial(
        make_vec_env,
        replace(config.environment, workers=workers),
        num_envs,
        protocol=config.protocol,
        training=True,
        obs=config.obs,
        obs_size=config.obs_size,
        frame_stack=config.frame_stack,
        num_threads=min(math.ceil(config.num_threads / config.env_groups), num_envs),
    )
    with ExitStack() as opened:
        groups = [opened.enter_context(closing(make_group())) for _ in range(config.env_groups)]
        venv = GroupedVecEnv(groups) if len(groups) > 1 else groups[0]
        # No group failed: the caller closes them.
        opened.pop_all()
    return venv


def build_agent(config: TrainConfig, venv: VecEnv, step: int = 0) -> Agent:
    """A fresh agent of a resolved configuration, with its ``weights`` in the encoder.

    The next reset of its environments is seeded by the run's seed and the agent ``step`` at which
    training begins or goes on. A UserError refuses options that do not fit each other or them.
    """
    policy_kwargs = {
        "features_extractor_kwargs": {
            "encoder": config.encoder,
            "encoder_options": config.encoder_options,
            "weights": None if config.weights == "none" else config.weights,
            "frozen": config.mode == "frozen",
            "unfreeze_from": config.unfreeze_from or None,
        },
        "precision": config.precision,
        "encoder_lr_factor": config.finetune_factor if config.mode == "finetune" else 1.0,
        "head_lr_factor": config.head_factor,
        "unfreeze_at_step": config.unfreeze_at_step,
        "feature_dtype": config.feature_dtype,
    }
    with size_option("--obs-size"):
        model = config.algorithm.agent(
            "CnnPolicy",
            venv,
            seed=config.seed,
            device=config.device,
            policy_kwargs=policy_kwargs,
            **config.hyperparameters.to_arguments(),
            **_run_arguments(config),
        )
    # After the agent, which seeds its environments with its own seed when it is made.
    venv.seed(derive_seed(config.seed, "train", step))
    return model


def load_agent(
    run_dir: str | Path, *, checkpoint: str | Path | None = None, device: str = "auto"
) -> Agent:
    """The trained agent of a run, finished or not, ready to ``predict``.

    Its ``num_timesteps`` says how long it had been trained.

    Use it to play only; :func:`agents.train.training.resume` continues the training.

    Args:
        run_dir: what ``scripts/train_agent.py`` wrote.
        checkpoint: one of its ``checkpoints/``, or the step of one; by default the newest whole.
        device: "auto", "cpu", "cuda" ...; need not be the device it was trained on.

    Raises:
        UserError: the run or checkpoint is missing or damaged.
    """
    run = RunDirectory.open(run_dir)
    # The checkpoint has all weights.
    model = _agent_to_play(replace(read_config(run), weights="none"), device)
    for last_try in (False, False, True):
        path = find_checkpoint(run, checkpoint)
        try:
            load_policy(model, path)
            break
        except UserError:
            # A run in progress removes its old checkpoints: there is a newer one then.
            if last_try or path.exists():
                raise
    model.num_timesteps = int(path.name)
    return model


def untrained_agent(run_dir: str | Path, *, device: str = "auto") -> Agent:
    """The agent of a run as it was before its training, ready to ``predict``.

    Args:
        run_dir: what ``scripts/train_agent.py`` wrote.
        device: as for :func:`load_agent`.

    Raises:
        UserError: the run is missing or damaged, or its first weights are no longer there.
    """
    return _agent_to_play(read_config(RunDirectory.open(run_dir)), device)


def _agent_to_play(config: TrainConfig, device: str) -> Agent:
    # Only the environments' spaces are needed, and emulators start slowly: one is enough. The
    # agent will not learn, so any valid rollout will do.
    config = replace(
        config,
        device=resolve_device(device),
        num_envs=1,
        env_groups=1,
        env_workers=0,
        compile="off",
        cuda_graphs="off",
        overlap="off",
    ).with_hyperparameters(config.hyperparameters.without_learning())
    with closing(make_train_env(config)) as venv:
        return build_agent(config, venv)


def find_checkpoint(run: RunDirectory, wanted: str | Path | None = None) -> Path:
    """A checkpoint of a run whose policy is whole; of its other files only the sizes are checked.

    ``wanted`` is its directory or its step; by default it is the newest that is whole. A UserError
    is raised if there is none, or it is damaged.
    """
    if wanted is None:
        newest, broken = run.latest_whole([POLICY])
        if broken:
            # Perhaps only because a run in progress replaced it while it was read.
            newest, broken = run.latest_whole([POLICY])
        if newest is None:
            found = f": {broken[0].path}: {broken[0].reason}" if broken else " yet"
            raise UserError(f"run {run.path} has no whole checkpoint{found}")
        return newest
    path = Path(wanted)
    if not path.is_dir():
        path = run.checkpoints_dir / str(wanted).zfill(12)
    if not path.is_dir() or not path.name.isdecimal():
        known = ", ".join(str(int(checkpoint.name)) for checkpoint in run.checkpoints())
        raise UserError(
            f"run {run.path} has no checkpoint {wanted}: it has those of step {known or '(none)'}"
        )
    if (flaw := run.verify(path, [POLICY])) is not None:
        raise UserError(f"checkpoint {path} is damaged: {flaw}")
    return path


def load_report(model: Agent) -> LoadReport | None:
    """The report on the initial weights that were loaded into the encoder, if any."""
    extractor = encoder_extractor(model)
    return extractor.load_report if extractor else None


def describe_storage(model: Agent) -> str:
    """What of each frame is stored, and how much memory all of it takes."""
    algorithm = algorithm_of(model)
    codec = algorithm.storage(model).codec
    item = "x".join(str(side) for side in codec.shape if side > 1)
    what = f"{item} pixels of each frame"
    if not isinstance(codec, PixelCodec):
        each = "frame" if codec.stacking.depth > 1 else "observation"
        kind = str(codec.dtype).removeprefix("torch.")
        what = f"{item} features of the frozen encoder ({kind}) of each {each}"
    return f"{what}: {gigabytes(algorithm.storage_bytes(model))}"


def check_resources(model: Agent, config: TrainConfig, run_dir: Path) -> None:
    """Checks before a training begins that it will fit into memory and on the disk.

    DQN's replay takes its memory here.

    Raises:
        UserError: there is too little room.
    """
    parameters = sum(p.numel() * p.element_size() for p in model.policy.parameters())
    # The policy, Adam's two moments, and one checkpoint more than is kept while it is written.
    needed = 3 * parameters * (config.keep_checkpoints + 1)
    replay = algorithm_of(model).find_replay(model)
    if replay is not None and config.save_replay:
        # The old snapshot stays until the new one is whole.
        needed += 2 * replay.nbytes
    place = run_dir.absolute()
    with disk_errors(run_dir):
        while not place.exists():
            place = place.parent
    # A resumed run removes its old checkpoints: their room counts as free.
    held = sum(file.stat().st_size for file in run_dir.glob("checkpoints/*/*"))
    free = shutil.disk_usage(place).free + held
    if needed > free:
        hint = "; --no-save-replay needs less" if replay is not None else ""
        raise UserError(
            f"checkpoints in {run_dir} may take {gigabytes(needed)},"
            f" but {place} has {gigabytes(free)} free for them{hint}"
        )


def _run_arguments(config: TrainConfig) -> dict[str, Any]:
    """The agent's arguments beyond stable-baselines3's, from the options of the run.

    These arguments are keyword-only and have the options' names, but for ``compile_update``.
    """
    options = {**vars(config), "compile_update": config.compile}
    switches = {"on": True, "off": False}
    return {
        name: switches.get(options[name], options[name])
        for name, parameter in signature(config.algorithm.agent).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY and name in options
    }
