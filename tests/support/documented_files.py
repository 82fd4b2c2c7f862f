"""Files that the pages take for granted: images, weights without a meaning, short runs."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from support.documented import SHORT, shorten
from support.script_runs import load_script

# The file that torchvision looks for before it downloads ResNet-18's ImageNet weights.
_RESNET18 = "torch/hub/checkpoints/resnet18-f37072fd.pth"


def make_workspace(place: Path) -> Path:
    """Writes everything that a page's commands name but do not make themselves."""
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("cats", "dogs"):
            _write_images(place / "my_pictures" / part / name, 12, 64, random)
        for name in map(str, range(4)):
            _write_images(place / "imagenet" / part / name, 4, 256, random)
    for part in ("train", "test"):
        for name in map(str, range(10)):
            _write_images(place / "cifar10" / part / name, 3, 32, random)
    (place / "data").mkdir()
    shutil.copytree(place / "cifar10", place / "data" / "cifar10")
    _write_images(place / "imagenet-samples", 6, 256, random)
    rows = [f"{number:04d}.png,{number}" for number in range(6)]
    words = ("cats", "dogs", "tench", "goldfish")
    vectors = [f"{word} {number} 1" for number, word in enumerate(words)]
    (place / "vectors.txt").write_text("\n".join(vectors) + "\n")
    (place / "labels.csv").write_text("\n".join(["file,class_index", *rows]) + "\n")
    for folder in ("data", "mnist"):
        _write_digits(place / folder, random)
    _write_weights(place)
    _make_runs(place)
    return place


def as_killed(run: Path) -> None:
    """Brings a finished run back to its last checkpoint but one, as a kill leaves it."""
    (run / "summary.json").unlink(missing_ok=True)
    checkpoints = sorted(run.glob("checkpoints/*"))
    if len(checkpoints) > 1:
        shutil.rmtree(checkpoints[-1])


def _write_images(folder: Path, number: int, side: int, random: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for name in range(number):
        image = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name:04d}.png"), image)


def _write_digits(folder: Path, random: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    for prefix in ("train", "t10k"):
        labels = np.arange(40, dtype=np.uint8) % 10
        images = random.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        for name, array in ((f"{prefix}-labels-idx1", labels), (f"{prefix}-images-idx3", images)):
            header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
            with gzip.open(folder / f"{name}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())


def _write_weights(place: Path) -> None:
    """Random weights under the names of published ones."""
    from torchvision.models import resnet18, squeezenet1_0

    file = place / _RESNET18
    file.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), file)
    shutil.copy(file, place / "resnet18.pth")
    weights = squeezenet1_0().state_dict()
    torch.save(weights, place / "squeezenet1_0.pth")
    for name in ("squeezenet1_0", "squeezenet1_0-imagenet"):
        save_file(weights, place / f"{name}.safetensors")


def _make_runs(place: Path) -> None:
    train, pretrain = load_script("train_agent"), load_script("pretrain_encoder")
    agent = place / "runs" / "SOME_RUN"
    train.main(shorten(["--run-dir", str(agent)], SHORT["train_agent"]))
    shutil.copytree(agent, place / "runs" / "SOME_PONG_AGENT")
    eyes = place / "runs" / "SOME_PRETRAINING"
    pretrain.main(
        shorten(
            ["--run-dir", str(eyes), "--data-dir", str(place / "data")], SHORT["pretrain_encoder"]
        )
    )
    for name in ("runs/balls", "three-games"):
        shutil.copytree(eyes, place / name)
