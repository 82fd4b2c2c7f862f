"""Pretraining from the command line, and its weights in an agent."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from support.script_runs import (
    TINY,
    command,
    environment,
    metrics,
    policy,
    read,
    run_script,
    steps_of,
)

from envs.errors import UserError
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.supervised.config import RECIPE_NAMES, PretrainConfig

Script = Callable[..., None]

# Grey images of an agent's shape, on one core.
OPTIONS = [
    *("--recipe", "lenet5-1998", "--encoder", "lenet", "--augment.pad", "0"),
    *("--batch-size", "8", "--precision", "fp32", "--num-threads", "1"),
    *("--track", "disabled"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of grey images with different brightness."""
    path = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name, level in (("dark", 0), ("light", 120)):
        (path / name).mkdir()
        for number in range(20):
            pixels = level + random.integers(0, 120, (44, 44))
            Image.fromarray(pixels.astype(np.uint8)).save(path / name / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def run(
    folder: Path, pretrain_encoder: Script, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A finished run and its output."""
    path = tmp_path_factory.mktemp("runs") / "run [1]"
    with redirect_stderr(StringIO()) as said:
        pretrain_encoder(
            *(*OPTIONS, "--data", f"folder:{folder}", "--epochs", 3, "--run-dir", path),
            *("--learning-rate", "0.01", "--baselines", "on"),
        )
    return path, said.getvalue()


def refused(script: Script, *arguments: object) -> str:
    with pytest.raises(UserError) as error:
        script(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_prints_its_accuracy_and_the_path_of_its_weights(run: tuple[Path, str]) -> None:
    path, said = run
    summary = read(path / "summary.json")
    top1 = summary["test"]["last"]["top1"]
    assert top1 > 0.8
    assert f"top-1 {100 * top1:.2f}%" in said
    for message in ("majority class:", "random encoder:", "linear on pixels:", str(path)):
        assert message in said
    assert str(path / "best.safetensors") in said
    assert "Traceback" not in said
    assert [row["epoch"] for row in metrics(path)] == [1, 2, 3]


@pytest.mark.parametrize(
    "recipe, given, whole",
    [
        ("resnet-cifar-2016", "depth 8", {"depth": 8}),
        ("lenet5-1998", "features_dim 16", {"variant": "lecun1998", "features_dim": 16}),
        ("lenet5-1998", "variant tanh", {"variant": "tanh"}),
    ],
)
def test_encoder_options_change_and_extend_those_of_a_recipe(
    recipe: str,
    given: str,
    whole: dict[str, Any],
    folder: Path,
    pretrain_encoder: Script,
    tmp_path: Path,
) -> None:
    pretrain_encoder(
        *("--recipe", recipe, "--encoder-options", *given.split(), "--epochs", 1),
        *("--data", f"folder:{folder}", "--batch-size", 32, "--num-threads", 1),
        *("--track", "disabled", "--run-dir", tmp_path / "run"),
    )
    assert read(tmp_path / "run" / "config.json")["pretraining"]["encoder_options"] == whole


def test_its_weights_are_an_agents_start(
    run: tuple[Path, str],
    train_agent: Script,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    # The printed command says that observations are one grey frame of 44x44, as the images are.
    (printed,) = re.findall(r"^train agent: (.*)$", run[1], re.MULTILINE)
    train_agent(
        *(*TINY, "--obs-size", 84, "--total-steps", 128, "--eval-episodes", 0),
        *(*shlex.split(printed)[2:], "--mode", "frozen", "--run-dir", tmp_path / "agent"),
    )
    assert "head.* (2 tensors): left unused" in capsys.readouterr().err
    best = load_file(run[0] / "best.safetensors")
    learned = policy(tmp_path / "agent")
    for name in ("trunk.c1.weight", "projection.f6.bias"):
        assert learned[f"features_extractor.encoder.{name}"] == best[name].tobytes()


def test_the_same_command_gives_the_same_weights(
    run: tuple[Path, str], pretrain_encoder: Script, tmp_path: Path
) -> None:
    pretrain_encoder("--config", run[0] / "config.json", "--run-dir", tmp_path / "again")
    for name in ("best", "last"):
        one, other = (
            load_file(path / f"{name}.safetensors") for path in (run[0], tmp_path / "again")
        )
        assert {k: v.tobytes() for k, v in one.items()} == {
            k: v.tobytes() for k, v in other.items()
        }


@pytest.mark.slow
def test_a_run_killed_without_warning_resumes(
    folder: Path, pretrain_encoder: Script, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    options = [*OPTIONS, "--data", f"folder:{folder}", "--run-dir", path]
    with subprocess.Popen(
        command("pretrain_encoder", *options, "--epochs", 100_000),
        env=environment(),
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while not (path / "checkpoints").is_dir() or not steps_of(path):
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
    before, checkpoint = metrics(path), steps_of(path)[-1]
    # 32 images make four updates an epoch.
    end = checkpoint // 4 + 2
    pretrain_encoder("--resume", path, "--epochs", end)
    assert [row["epoch"] for row in metrics(path)] == list(range(1, end + 1))
    kept = checkpoint // 4
    assert metrics(path)[:kept] == before[:kept]
    assert read(path / "summary.json")["epochs"] == end


def test_help_explains_every_option(
    pretrain_encoder: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        pretrain_encoder("--recipe", "resnet9-2018", "--help")
    assert end.value.code == 0
    output = capsys.readouterr().out
    sections: dict[str, Any] = {"augment": AugmentConfig, "frames": FrameOptions}
    names = [f.name for f in dataclasses.fields(PretrainConfig) if f.name not in sections]
    for section, cls in sections.items():
        names += [f"{section}.{f.name}" for f in dataclasses.fields(cls)]
    for name in names:
        option = re.escape("--" + name.replace("_", "-"))
        explained = re.search(rf"^\W+{option}[ ,](.*?)\(default:", output, re.DOTALL | re.MULTILINE)
        assert explained, name
        assert len(re.findall(r"[A-Za-z]{2,}", explained[1])) >= 3, name
    epochs = re.search(r"--epochs INT.*?\(default: (\d+)\)", output, re.DOTALL)
    assert epochs is not None
    assert epochs[1] == "24", "those of the recipe"
    assert all(name in output for name in RECIPE_NAMES)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("--recipe resnet-2016", ['--recipe "resnet-2016" is unknown', "resnet-cifar-2016"]),
        ("--data mnits", ['--data "mnits" is unknown', '"mnist"?']),
        ("--data folder:nothing", ['image folder "nothing" does not exist']),
        ("--data mnist --data-dir empty", ["cannot download mnist", "--data-dir DIR"]),
        ("--encoder natur", ['--encoder "natur" is unknown', '"nature"?']),
        ("--epohcs 3", ['unknown option "--epohcs"', '"--epochs"?']),
        ("--epochs 1.5", ['--epochs "1.5" is not a whole number']),
        ("--augment.crop many", ['--augment.crop "many" is not a whole number']),
        ("--schedule step", ['--schedule "step" is unknown', '"steps"?']),
        ("--device cuda:99", ['device "cuda:99" is not there']),
        ("--resume nothing", ["nothing", "does not exist"]),
        ("--config nothing.json", ["nothing.json is not a file"]),
        ("--config nothing.json --recipe lenet5-1998", ["--config and --recipe", "give one"]),
    ],
)
def test_bad_options_are_one_line_and_make_no_run(
    arguments: str,
    said: list[str],
    pretrain_encoder: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    # No network is used.
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    (tmp_path / "empty").mkdir()
    message = refused(pretrain_encoder, *arguments.split(" "))
    assert all(part in message for part in said), message
    assert not (tmp_path / "runs").exists()


def _no_network(*_: object, **__: object) -> None:
    raise OSError("Network is unreachable")


def test_images_too_small_for_the_encoder_are_refused(
    folder: Path, pretrain_encoder: Script, tmp_path: Path
) -> None:
    options = ["--data", f"folder:{folder}", "--run-dir", tmp_path / "run"]
    message = refused(pretrain_encoder, *OPTIONS, *options, "--encoder", "alexnet_2012")
    assert '44x44 pixels are too small for encoder "alexnet_2012"' in message
    assert "it needs at least 67x67. Give --augment." in message
    assert not (tmp_path / "run").exists()


def test_weights_of_another_network_are_refused(
    run: tuple[Path, str], folder: Path, pretrain_encoder: Script, tmp_path: Path
) -> None:
    options = ["--data", f"folder:{folder}", "--run-dir", tmp_path / "run", "--encoder", "nature"]
    message = refused(pretrain_encoder, *OPTIONS, *options, "--weights", run[0])
    assert 'holds weights of encoder "lenet"' in message
    assert not (tmp_path / "run").exists()


def test_an_encoder_pretrained_without_labels_is_an_agents_start(
    pretrain_encoder: Script, train_agent: Script, tmp_path: Path
) -> None:
    with redirect_stderr(StringIO()) as said:
        pretrain_encoder(
            *("--objectives", "spr", 1, "inverse", "0.5", "--jumps", 2, "--epochs", 1),
            *("--data", "atari:Breakout", "--data-dir", tmp_path, "--frames.obs-size", 44),
            *("--frames.train-frames", 100, "--frames.test-frames", 100, "--baselines", "off"),
            *("--batch-size", 32, "--precision", "fp32", "--num-threads", 1),
            *("--track", "disabled", "--run-dir", tmp_path / "run"),
        )
    (printed,) = re.findall(r"^train agent: (.*)$", said.getvalue(), re.MULTILINE)
    train_agent(
        *(*TINY, "--total-steps", 128, "--eval-episodes", 0),
        *(*shlex.split(printed)[2:], "--mode", "frozen", "--run-dir", tmp_path / "agent"),
    )
    best, learned = load_file(tmp_path / "run" / "best.safetensors"), policy(tmp_path / "agent")
    for name in ("trunk.conv1.weight", "projection.linear.bias"):
        assert learned[f"features_extractor.encoder.{name}"] == best[name].tobytes()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--objectives", "spr"], "--objectives spr needs sequences of frames"),
        (["--objectives", "spr", "-1"], "--objectives spr -1 must have a weight above 0"),
        (["--objectives", "sprr"], 'Did you mean "spr"?'),
    ],
)
def test_objectives_that_do_not_fit_are_one_line(
    options: list[str], said: str, folder: Path, pretrain_encoder: Script
) -> None:
    assert said in refused(pretrain_encoder, *OPTIONS, "--data", f"folder:{folder}", *options)


@pytest.mark.slow
def test_lenet_learns_real_digits(real_data: Path, tmp_path: Path) -> None:
    done = run_script(
        "pretrain_encoder",
        *("--recipe", "lenet5-1998", "--data-dir", real_data / "mnist", "--epochs", 2),
        *("--track", "disabled", "--run-dir", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    # The published error after all 20 passes is 0.95%.
    assert summary["test"]["last"]["top1"] > 0.97


def test_a_trained_agent_plays_instead_of_random_actions(
    finished: tuple[Path, str],
    pretrain_encoder: Script,
    evaluate_classifier: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Few games side by side: each takes an emulator of its own.
    monkeypatch.setattr("rlcnn.data.atari.playing.LANES", 1)
    run = tmp_path / "run"
    options = [
        *(*OPTIONS, "--data", "atari:Breakout", "--data-dir", tmp_path, "--frames.obs-size", 44),
        *("--frames.train-frames", 100, "--frames.test-frames", 100, "--baselines", "off"),
        *("--frames.max-episode-steps", 60, "--frames.min-entropy", 0.01),
    ]
    pretrain_encoder(*options, "--epochs", 1, "--players", finished[0], "--run-dir", run)
    fingerprint = read(run / "config.json")["data"]["games"]["policies"]["Breakout"]
    assert len(fingerprint) == 64
    # The same games are played once more, since those that were kept are gone.
    kept = list((tmp_path / "atari-frames").iterdir())
    shutil.rmtree(tmp_path / "atari-frames")
    pretrain_encoder("--resume", run, "--epochs", 2)
    assert list((tmp_path / "atari-frames").iterdir()) == kept
    # And it is evaluated on its own data.
    evaluate_classifier(run, "--task", "Breakout/player_x", "--json", tmp_path / "result.json")
    assert list((tmp_path / "atari-frames").iterdir()) == kept


@pytest.mark.parametrize(
    "options, said",
    [
        ("--data atari:Breakout", "--obs-size 44, not 84: give --frames.obs-size 44"),
        ("--data atari:Pong --frames.obs-size 44", 'a policy is given for "Breakout"'),
        ("--data atari:Breakout --frames.obs-size 44 --frames.protocol sticky", "has the actions"),
        ("--data mnist", "--players is for atari: data"),
    ],
)
def test_agents_that_cannot_play_are_refused(
    options: str, said: str, finished: tuple[Path, str], pretrain_encoder: Script, tmp_path: Path
) -> None:
    message = refused(
        *(pretrain_encoder, *OPTIONS, *options.split(), "--players", finished[0]),
        *("--run-dir", tmp_path / "run"),
    )
    assert said in message
    assert not (tmp_path / "run").exists()
