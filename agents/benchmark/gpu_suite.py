"""Everything worth measuring on a GPU, in one call with a time limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agents.benchmark.options import Scale
from agents.benchmark.peers import peer_variants
from agents.benchmark.stage_learners import (
    SupervisedLearner,
    emulators_alone,
    environments_alone,
    update_alone,
)
from agents.benchmark.suite import Settings
from agents.benchmark.timed_rows import Row, RowResult, measure_rows
from agents.config import TrainConfig
from agents.hyperparameters import Algorithm
from agents.measure.learners import Learner, our_agent
from agents.measure.timing import Log
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.provenance import provenance

ENVIRONMENTS = "environments alone, ale-py's AtariVectorEnv"
# Name: with CUDA graphs, with overlap.
_WAYS = {"eager": (False, False), "graphs": (True, False), "graphs + overlap": (True, True)}


@dataclass(frozen=True)
class Sizes:
    """Default sizes of a suite: values of the training and of its sections to replace, and others.

    ``dqn_num_envs`` are DQN's environments, ``peer_num_envs`` the most processes of
    stable-baselines3; ``image_batch`` is a minibatch of supervised training, and no figure is
    measured for more than ``stretch`` seconds.
    """

    train: dict[str, Any]
    ppo: dict[str, Any]
    dqn: dict[str, Any]
    dqn_num_envs: int
    peer_num_envs: int
    images: int
    image_batch: int
    stretch: float

    def apply(self, train: TrainConfig) -> TrainConfig:
        """The training with these sizes."""
        return replace(
            train,
            **self.train,
            ppo=replace(train.ppo, **self.ppo),
            dqn=replace(train.dqn, **self.dqn),
        )


SIZES: dict[Scale, Sizes] = {
    "full": Sizes(
        train={"num_envs": 128},
        ppo={},
        dqn={"buffer_size": 1_000_000},
        dqn_num_envs=8,
        peer_num_envs=16,
        images=50_000,
        image_batch=128,
        stretch=20.0,
    ),
    # Shows that everything runs; its rates mean nothing.
    "tiny": Sizes(
        train={"num_envs": 2, "num_threads": 1, "obs_size": 44},
        ppo={"n_steps": 8, "batch_size": 8, "n_epochs": 1},
        dqn={"buffer_size": 1_000, "learning_starts": 20, "batch_size": 4},
        dqn_num_envs=2,
        peer_num_envs=2,
        images=32,
        image_batch=8,
        stretch=0.5,
    ),
}


def run_gpu_suite(
    settings: Settings, scale: Scale, deadline: float, json: Path | None, log: Log
) -> None:
    """Measures row after row on the settings' device; prints and writes each as soon as it is done.

    ``scale`` names sizes that the settings do not hold. Everything has ended by ``deadline``, on
    :func:`time.monotonic`'s clock. The file ``json`` always holds all results so far; ``log``
    receives the header, then each row, in lines.

    Raises:
        UserError: a value is not valid; nothing has been measured then.
    """
    settings.validate()
    rows = gpu_rows(settings, SIZES[scale])
    document: dict[str, Any] = {
        "suite": "gpu",
        "scale": scale,
        "ended": False,
        "provenance": provenance(),
        "gpu": gpu_versions(settings.train.device),
        "config": settings.train.to_json(),
        "rows": [],
    }

    def write() -> None:
        if json is not None:
            write_json_atomic(json, document)

    def done(result: RowResult) -> None:
        document["rows"].append(result.to_json())
        write()
        log(str(result))

    write()
    for line in header(document):
        log(line)
    measure_rows(rows, deadline, done, SIZES[scale].stretch)
    document["ended"] = True
    write()


def gpu_rows(settings: Settings, sizes: Sizes) -> list[Row]:
    """The rows of the suite, the most important first."""
    ppo = _config(settings, "ppo")
    impala = _config(settings, "ppo", encoder="impala")
    impala_update = "PPO, impala, update alone"
    impala_bounds = {ENVIRONMENTS: 1.0, impala_update: impala.hyperparameters.samples_per_step}

    def agents(
        name: str, algo: Algorithm, bounds: Mapping[str, float], **options: Any
    ) -> list[Row]:
        """A row for each of the ways to run an agent."""
        return [
            _agent_row(f"{name}, {way}", _config(settings, algo, *how, **options), bounds)
            for way, how in _WAYS.items()
        ]

    nature = agents("PPO, nature", "ppo", {ENVIRONMENTS: 1.0})
    # A random backbone takes as long as a pretrained one. A CPU has no graphs and runs it without.
    frozen = _config(settings, "ppo", True, encoder="squeezenet1_0", mode="frozen")
    peer = _config(settings, "ppo", num_envs=min(sizes.peer_num_envs, settings.train.num_envs))
    return [
        # The threads are torch's, which emulators do not use; nor do they use the GPU.
        Row(ENVIRONMENTS, partial(emulators_alone, ppo), 1, "cpu"),
        Row("environments alone, AtariVecEnv", partial(environments_alone, ppo), 1, "cpu"),
        *nature,
        _row(impala_update, partial(update_alone, impala), impala, unit="samples"),
        *agents("PPO, impala", "ppo", impala_bounds, encoder="impala")[1:],
        *agents("DQN, nature", "dqn", {}),
        _agent_row("PPO, frozen squeezenet1_0, features stored", frozen, {}),
        _row(
            f"supervised, CIFAR ResNet-20, batches of {sizes.image_batch}",
            partial(SupervisedLearner, ppo, sizes.images, sizes.image_batch),
            ppo,
            unit="images",
        ),
        _row(
            f"stable-baselines3's PPO, nature, {peer.num_envs} processes",
            peer_variants("sb3", peer)["SubprocVecEnv"],
            peer,
            ours=tuple(row.name for row in nature),
        ),
    ]


def _agent_row(name: str, config: TrainConfig, bounds: Mapping[str, float]) -> Row:
    make = partial(our_agent, config)
    return _row(name, make, config, gpu_only="graphs" in name, bounds=bounds)


def _row(name: str, make: Callable[[], Learner], config: TrainConfig, **options: Any) -> Row:
    return Row(name, make, config.num_threads, config.device, **options)


def _config(
    settings: Settings, algo: Algorithm, graphs: bool = False, overlap: bool = False, **changes: Any
) -> TrainConfig:
    changes["cuda_graphs"] = "on" if graphs else "off"
    changes["overlap"] = "on" if overlap else "off"
    changes["replay_device"] = torch.device(settings.train.resolve().device).type
    train = replace(settings.train, **changes)
    return replace(settings, train=train).agent_config(algo)


def header(document: dict[str, Any]) -> list[str]:
    """Lines about the machine and the versions."""
    about, gpu = document["provenance"], document["gpu"]
    versions = about["versions"]
    commit = about["git_commit"] or "none"
    changed = " with changes" if about["git_dirty"] else ""
    driver = f"driver {gpu['driver'] or 'unknown'}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}"
    return [
        f"device: {gpu['name']}",
        *([driver] if gpu["cuda"] else []),
        f"torch {versions['torch']}, Python {versions['python']}",
        f"cores: {about['cores']} ({about['cpu']})",
        f"git commit: {commit}{changed}",
    ]


def gpu_versions(device: str) -> dict[str, str | None]:
    """``name``, ``driver``, ``cuda`` and ``cudnn``; None for a missing or unknown version."""
    on_gpu = torch.device(device).type == "cuda"
    cudnn = torch.backends.cudnn.version() if on_gpu else None
    return {
        "name": torch.cuda.get_device_name(device) if on_gpu else device,
        "driver": driver_version() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": None if cudnn is None else str(cudnn),
    }


def driver_version(account: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of NVIDIA's kernel driver, such as "550.54.14"; None if unknown."""
    try:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", account.read_text())
    except OSError:
        return None
    return found[0] if found else None
