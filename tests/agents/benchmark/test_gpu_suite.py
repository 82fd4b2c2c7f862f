"""Everything worth measuring on a GPU: which rows there are, and what is written of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.tiny_agents import Watched

from agents.benchmark import gpu_suite
from agents.benchmark.gpu_suite import SIZES, driver_version, gpu_rows, run_gpu_suite
from agents.benchmark.suite import Settings
from agents.benchmark.timed_rows import Row
from agents.config import TrainConfig
from agents.presets import preset_config
from rlcnn.runs.files import read_json


def settings(device: str) -> Settings:
    sizes = SIZES["full"]
    train = replace(sizes.apply(preset_config("zoo", "ppo")), device=device, precision="fp32")
    return Settings(train=train, dqn_num_envs=sizes.dqn_num_envs)


def configs(rows: list[Row]) -> dict[str, TrainConfig]:
    makes: dict[str, Any] = {row.name: row.make for row in rows}
    return {name: make.args[0] for name, make in makes.items()}


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings may name a GPU that is not there."""
    monkeypatch.setattr("rlcnn.accelerate.devices.resolve_device", lambda device: device)


@pytest.mark.usefixtures("on_gpu")
def test_the_most_important_rows_come_first() -> None:
    rows = gpu_rows(settings("cuda"), SIZES["full"])
    assert [row.name for row in rows] == [
        "environments alone, ale-py's AtariVectorEnv",
        "environments alone, AtariVecEnv",
        "PPO, nature, eager",
        "PPO, nature, graphs",
        "PPO, nature, graphs + overlap",
        "PPO, impala, update alone",
        "PPO, impala, graphs",
        "PPO, impala, graphs + overlap",
        "DQN, nature, eager",
        "DQN, nature, graphs",
        "DQN, nature, graphs + overlap",
        "PPO, frozen squeezenet1_0, features stored",
        "supervised, CIFAR ResNet-20, batches of 128",
        "stable-baselines3's PPO, nature, 16 processes",
    ]
    known = {row.name for row in rows}
    assert all({*row.bounds, *row.ours} <= known for row in rows)
    # Four epochs: each step is learned from four times.
    assert rows[6].bounds == {rows[0].name: 1, rows[5].name: 4}


@pytest.mark.usefixtures("on_gpu")
def test_rows_train_as_their_names_say() -> None:
    for name, config in configs(gpu_rows(settings("cuda"), SIZES["full"])).items():
        assert config.device == "cuda"
        assert (config.overlap == "on") == ("overlap" in name)
        if name.startswith(("PPO", "DQN")) and "alone" not in name:
            assert (config.cuda_graphs == "off") == ("eager" in name)
        if name.startswith("DQN"):
            assert (config.num_envs, config.dqn.buffer_size) == (8, 1_000_000)
            assert config.replay_device == "cuda"
            assert (config.dqn.batch_size, config.dqn.train_freq) == (32, 4)
        elif "stable-baselines3" not in name:
            assert config.num_envs == 128
        assert (config.encoder == "impala") == ("impala" in name)
        assert (config.mode == "frozen") == ("frozen" in name)


def test_a_cpu_has_rows_that_are_not_for_it() -> None:
    rows = gpu_rows(settings("cpu"), SIZES["full"])
    assert [row.name for row in rows if not row.possible] == [
        row.name for row in rows if "graphs" in row.name
    ]


@pytest.mark.slow
def test_a_suite_that_is_stopped_leaves_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row(name, partial(Watched, tmp_path / "log"), 1, "cpu") for name in "ab"]
    monkeypatch.setattr(gpu_suite, "gpu_rows", lambda *_: rows)
    written, lines = tmp_path / "speed.json", []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith("a: "):
            raise KeyboardInterrupt

    def run(log: Callable[[str], None]) -> None:
        run_gpu_suite(settings("cpu"), "tiny", time.monotonic() + 600, written, log)

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    stopped = read_json(written)
    assert [row["name"] for row in stopped["rows"]] == ["a"]
    assert stopped["rows"][0]["rate"] > 0
    assert not stopped["ended"]
    assert lines[0] == "device: cpu"

    run(lines.append)
    assert [row["status"] for row in read_json(written)["rows"]] == ["measured"] * 2
    assert read_json(written)["ended"]


@pytest.mark.parametrize(
    "account, version",
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 24 2024\n"
            "GCC version:  gcc version 11.4.0\n",
            "535.161.08",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86  Release\n", "570.86"),
        ("nothing\n", None),
        (None, None),
    ],
)
def test_the_version_of_the_driver(
    account: str | None, version: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "version"
    if account is not None:
        file.write_text(account)
    assert driver_version(file) == version
