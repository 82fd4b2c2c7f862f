"""Everything worth measuring on a GPU in one call that ends within its minutes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from agents.benchmark.peers import peer_variants
from agents.benchmark.settings import Settings
from agents.benchmark.stage_learners import (
    SupervisedLearner,
    emulators_alone,
    environments_alone,
    update_alone,
)
from agents.benchmark.timed_rows import Row, RowResult, measure_rows
from agents.config import TrainConfig
from agents.measure.learners import our_agent
from agents.registry import Algorithm
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.provenance import provenance

Scale = Literal["full", "tiny"]

ENVIRONMENTS = "environments alone, ale-py's AtariVectorEnv"


@dataclass(frozen=True)
class Sizes:
    """How large a suite is, where the command line does not say otherwise.

    Attributes:
        train: replaces values of the training.
        ppo: of its PPO section.
        dqn: of its DQN section.
        dqn_num_envs: environments of DQN.
        peer_num_envs: processes of stable-baselines3, as far as there are environments.
        images: made for supervised training.
        image_batch: images in its minibatches.
        stretch: seconds that a figure is measured for, at most.
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
        """The training in these sizes."""
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
    # Shows that everything runs; its figures say nothing of speed.
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
    settings: Settings,
    scale: Scale,
    deadline: float,
    json: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Measures row after row; each is printed and written as soon as it is done.

    Args:
        settings: of the training; its device is where everything is measured.
        scale: sizes that the settings do not hold.
        deadline: on :func:`time.monotonic`'s clock; everything has ended by then.
        json: file that always holds all that was measured so far; None writes none.
        tell: takes the header, then each row, in lines.

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
        tell(str(result))

    write()
    for line in header(document):
        tell(line)
    measure_rows(rows, deadline, done, SIZES[scale].stretch)
    document["ended"] = True
    write()


def gpu_rows(settings: Settings, sizes: Sizes) -> list[Row]:
    """The rows of the suite, the most important first."""
    return [
        *_environment_rows(settings),
        *_nature_rows(settings),
        *_impala_rows(settings),
        *_dqn_rows(settings),
        *_frozen_rows(settings),
        *_supervised_rows(settings, sizes),
        *_peer_rows(settings, sizes),
    ]


def _environment_rows(settings: Settings) -> list[Row]:
    config = _config(settings, "ppo")
    return [
        # These threads are torch's, which the emulators do not use; nor do they use the GPU.
        Row(ENVIRONMENTS, partial(emulators_alone, config), 1, "cpu"),
        Row("environments alone, AtariVecEnv", partial(environments_alone, config), 1, "cpu"),
    ]


def _nature_rows(settings: Settings) -> list[Row]:
    ways = {"eager": (False, False), "graphs": (True, False), "graphs + overlap": (True, True)}
    return [
        _agent_row(
            f"PPO, nature, {way}",
            _config(settings, "ppo", graphs, overlap),
            bounds={ENVIRONMENTS: 1.0},
        )
        for way, (graphs, overlap) in ways.items()
    ]


def _impala_rows(settings: Settings) -> list[Row]:
    ways = {"graphs": False, "graphs + overlap": True}
    config = _config(settings, "ppo", encoder="impala")
    update = "PPO, impala, update alone"
    return [
        Row(update, partial(update_alone, config), config.num_threads, config.device, "samples"),
        *(
            _agent_row(
                f"PPO, impala, {way}",
                _config(settings, "ppo", True, overlap, encoder="impala"),
                bounds={ENVIRONMENTS: 1.0, update: config.hyperparameters.samples_per_step},
            )
            for way, overlap in ways.items()
        ),
    ]


def _dqn_rows(settings: Settings) -> list[Row]:
    ways = {"eager": (False, False), "graphs": (True, False), "graphs + overlap": (True, True)}
    return [
        _agent_row(f"DQN, nature, {way}", _config(settings, "dqn", graphs, overlap))
        for way, (graphs, overlap) in ways.items()
    ]


def _frozen_rows(settings: Settings) -> list[Row]:
    # A random backbone takes as long as a pretrained one. A CPU has no graphs and runs it without.
    config = _config(settings, "ppo", True, encoder="squeezenet1_0", mode="frozen")
    return [_agent_row("PPO, frozen squeezenet1_0, features stored", config)]


def _supervised_rows(settings: Settings, sizes: Sizes) -> list[Row]:
    config = _config(settings, "ppo")
    make = partial(SupervisedLearner, config, sizes.images, sizes.image_batch)
    name = f"supervised, CIFAR ResNet-20, batches of {sizes.image_batch}"
    return [Row(name, make, config.num_threads, config.device, "images")]


def _peer_rows(settings: Settings, sizes: Sizes) -> list[Row]:
    processes = min(sizes.peer_num_envs, settings.train.num_envs)
    config = _config(settings, "ppo", num_envs=processes)
    name = f"stable-baselines3's PPO, nature, {processes} processes"
    make = peer_variants("sb3", config)["SubprocVecEnv"]
    ours = tuple(row.name for row in _nature_rows(settings))
    return [Row(name, make, config.num_threads, config.device, ours=ours)]


def _agent_row(name: str, config: TrainConfig, bounds: dict[str, float] | None = None) -> Row:
    return Row(
        name,
        partial(our_agent, config),
        config.num_threads,
        config.device,
        gpu_only="graphs" in name,
        bounds=bounds or {},
    )


def _config(
    settings: Settings,
    algo: Algorithm,
    graphs: bool = False,
    overlap: bool = False,
    **changes: Any,
) -> TrainConfig:
    changes["cuda_graphs"] = "on" if graphs else "off"
    changes["overlap"] = "on" if overlap else "off"
    changes["replay_device"] = torch.device(settings.train.resolve().device).type
    train = replace(settings.train, **changes)
    return replace(settings, train=train).agent_config(algo)


def header(document: dict[str, Any]) -> list[str]:
    """Machine and versions, in lines."""
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
    """``name``, ``driver``, ``cuda`` and ``cudnn``; None for what is not there or not known."""
    on_gpu = torch.device(device).type == "cuda"
    cudnn = torch.backends.cudnn.version() if on_gpu else None
    return {
        "name": torch.cuda.get_device_name(device) if on_gpu else device,
        "driver": driver_version() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": None if cudnn is None else str(cudnn),
    }


def driver_version(account: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of NVIDIA's kernel driver, such as "550.54.14"; None where nothing tells."""
    try:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", account.read_text())
    except OSError:
        return None
    return found[0] if found else None
