"""Encoders saved and loaded: files, folders and runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from support.weights import SHAPE, equal, refusal
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms import CenterCrop

from envs.errors import UserError
from rlcnn.encoders import create_encoder, encoder_options, list_encoders
from rlcnn.runs.directory import RunDirectory
from rlcnn.weights.load import (
    load_encoder,
    load_into,
    read_about,
    read_tensors,
    save_encoder,
    save_tensors,
)
from rlcnn.weights.report import LoadReport

LARGER = {"alexnet_2012": (4, 67, 67), "zfnet": (4, 47, 47)}


@pytest.mark.parametrize("name", list_encoders())
def test_an_encoder_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    shape = LARGER.get(name, SHAPE)
    options = {"features_dim": 7} if "features_dim" in encoder_options(name) else {}
    encoder = create_encoder(name, shape, **options)
    path = tmp_path / "encoder.safetensors"
    save_encoder(encoder, path, {"accuracy": 0.5})
    loaded = load_encoder(path)
    assert type(loaded) is type(encoder)
    assert loaded.spec() == encoder.spec()
    assert equal(loaded, encoder)
    assert read_about(path) == {"accuracy": 0.5}
    other = create_encoder(name, shape, **options)
    report = load_into(other, path)
    everything = tuple(encoder.state_dict())
    assert report == LoadReport(everything, {}, (), (), f'"{path}"', report.origin)
    assert equal(other, encoder)


def test_the_file_is_plain_safetensors_with_a_json_spec(tmp_path: Path) -> None:
    encoder = create_encoder("lenet", SHAPE).to(memory_format=torch.channels_last)
    save_encoder(encoder, tmp_path / "e.safetensors")
    tensors = load_file(tmp_path / "e.safetensors")
    assert tensors.keys() == encoder.state_dict().keys()
    with safe_open(tmp_path / "e.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["rlcnn"])
    assert header["metadata"]["encoder"] == encoder.spec()


def test_saving_leaves_one_file_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(create_encoder("lenet", SHAPE), path)
    newer = create_encoder("nature", SHAPE)
    save_encoder(newer, path)
    assert os.listdir(tmp_path) == [path.name]
    assert equal(load_encoder(path), newer)


def test_a_failed_save_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(create_encoder("lenet", SHAPE), path)
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        save_encoder(create_encoder("nature", SHAPE), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


def test_shared_tensors_are_written_once_and_read_under_every_name(tmp_path: Path) -> None:
    big = torch.randn(1000)
    tensors = {"pi.w": big, "vf.w": big, "view": big.view(10, 100), "other": torch.randn(3)}
    path = tmp_path / "shared.safetensors"
    save_tensors(path, tensors, {"step": 3})
    assert load_file(path).keys() == {"pi.w", "view", "other"}
    read, metadata = read_tensors(path)
    assert metadata == {"step": 3}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_empty_tensors_are_not_taken_for_shared(tmp_path: Path) -> None:
    tensors = {"a": torch.empty(0), "b": torch.empty(0)}
    save_tensors(tmp_path / "e.safetensors", tensors, {})
    assert load_file(tmp_path / "e.safetensors").keys() == {"a", "b"}


def test_foreign_safetensors_load_where_they_fit(tmp_path: Path) -> None:
    source, target = create_encoder("impala", SHAPE), create_encoder("impala", SHAPE)
    path = tmp_path / "foreign.safetensors"
    save_file(source.state_dict(), path)
    load_into(target, path)
    assert equal(source, target)
    assert read_about(path) == {}
    with pytest.raises(UserError, match="does not say which encoder"):
        load_encoder(path)


def test_a_cast_is_reported(tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    tensors = source.state_dict()
    tensors["trunk.c1.bias"] = torch.full((6,), 0.5, dtype=torch.float16)
    save_file(tensors, tmp_path / "half.safetensors")
    report = load_into(target, tmp_path / "half.safetensors")
    change = "cast from torch.float16 to torch.float32"
    assert report.adapted == {"trunk.c1.bias": change}
    assert len(report.loaded) == 7
    assert str(report) == (
        f'tensors from "{tmp_path}/half.safetensors": 7 loaded, 1 adapted, 0 new '
        f"(trunk.c1.bias: {change})"
    )
    assert (target.get_parameter("trunk.c1.bias") == 0.5).all()


def test_weights_that_fit_another_image_size_load(tmp_path: Path) -> None:
    source = create_encoder("impala", (4, 40, 40), pooling="mean")
    target = create_encoder("impala", (4, 64, 64), pooling="mean")
    save_encoder(source, tmp_path / "e.safetensors")
    load_into(target, tmp_path / "e.safetensors")
    assert equal(source, target)


def test_another_encoder_or_other_options_are_named(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(create_encoder("lenet", SHAPE, variant="course"), path)
    assert 'holds weights of encoder "lenet"' in refusal(path)
    # The same shapes, but for another activation.
    message = refusal(path, create_encoder("lenet", SHAPE))
    assert "variant='course'" in message
    assert message.endswith(
        "Give --encoder-options variant course, or in an arm of a study lenet,variant=course@"
        " before the weights."
    )


def test_options_that_fit_the_weights_are_named_with_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(create_encoder("nature", SHAPE, features_dim=0), path)
    message = refusal(path, create_encoder("nature", SHAPE, norm="layer"))
    assert "Give --encoder-options features_dim 0 norm none," in message


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    save_encoder(create_encoder("lenet", SHAPE), tmp_path / "pong.safetensors")
    message = refusal(tmp_path / "ping.safetensors")
    assert message.endswith('does not exist. Did you mean "pong.safetensors"?')
    # No file can have such a name.
    assert refusal(tmp_path / ("x" * 300)).endswith("does not exist.")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 99}, "format version 99"),
        ({"name": "vggnet"}, 'unknown encoder "vggnet"'),
        ({"options": {"colour": 1}}, 'no option "colour"'),
        ({"options": None}, "cannot be read"),
        ({"observation_shape": [4, "a", 40]}, "cannot be built: an encoder takes images"),
    ],
)
def test_specs_that_cannot_be_used_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    encoder = create_encoder("nature", SHAPE)
    path = tmp_path / "e.safetensors"
    save_tensors(path, encoder.state_dict(), {"encoder": {**encoder.spec(), **change}})
    with pytest.raises(UserError, match=message) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value)


def test_a_folder_of_hugging_face_loads(tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    (tmp_path / "config.json").write_text('{"architecture": "lenet"}')
    torch.save(source.state_dict(), tmp_path / "pytorch_model.bin")
    assert load_into(target, tmp_path).origin is not None
    assert equal(source, target)
    source = create_encoder("lenet", SHAPE)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    load_into(target, tmp_path)
    assert equal(source, target)


def test_folders_of_weights_load_or_name_a_file_that_they_hold(tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    bare, hub, keras = (tmp_path / name for name in ("bare", "models--x--y", "keras"))
    snapshot = hub / "snapshots" / "1a2b"
    for folder in (bare, snapshot, keras):
        folder.mkdir(parents=True)
    save_file(source.state_dict(), bare / "model.safetensors")
    load_into(target, bare)
    assert equal(source, target)
    save_file(source.state_dict(), snapshot / "model.safetensors")
    assert refusal(hub).endswith(f'such as "{snapshot / "model.safetensors"}".')
    # A configuration does not make it a run.
    (keras / "config.json").write_text("{}")
    (keras / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert refusal(keras).endswith(f'such as "{keras / "tf_model.h5"}".')
    (keras / "tf_model.h5").unlink()
    assert refusal(keras).endswith("or pytorch_model.bin.")
    address = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert refusal(Path(address)).endswith("does not exist. Download it first, and give the file.")


@pytest.fixture
def squeezenet() -> Path:
    folder = os.environ.get("RLCNN_DATA")
    if not folder or not (Path(folder) / "squeezenet1_0-imagenet.safetensors").is_file():
        pytest.skip("RLCNN_DATA does not name a folder with squeezenet1_0-imagenet.safetensors")
    return Path(folder) / "squeezenet1_0-imagenet.safetensors"


def test_real_weights_classify_real_photographs(squeezenet: Path) -> None:
    encoder = create_encoder("squeezenet1_0:logits", (3, 227, 227), projection="none").eval()
    report = load_into(encoder, squeezenet)
    assert len(report.loaded) == 52
    folder = squeezenet.parent / "imagenet-samples"
    rows = (folder / "labels.csv").read_text().splitlines()[1:17]
    correct = 0
    for row in rows:
        file, label, _ = row.split(",")
        photograph = CenterCrop(227)(read_image(str(folder / file), ImageReadMode.RGB))
        with torch.no_grad():
            correct += int(encoder(photograph[None]).argmax()) == int(label)
    # Published as 62% on many more.
    assert correct >= 8


@pytest.mark.parametrize("prefix", ["", "q_net."])
def test_weights_come_from_the_newest_checkpoint_of_a_run(prefix: str, tmp_path: Path) -> None:
    old, new = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    with RunDirectory.create(tmp_path / "run", {}) as run:
        for step, encoder in ((10, old), (20, new)):
            state = encoder.state_dict()
            tensors = {f"{prefix}features_extractor.encoder.{n}": t for n, t in state.items()}
            # As PPO shares its encoder, and as DQN has a target network.
            tensors |= {f"pi_features_extractor.encoder.{n}": t for n, t in state.items()}
            tensors |= {"q_net_target.w": torch.zeros(2), "action_net.bias": torch.zeros(3)}
            with run.new_checkpoint(step) as directory:
                spec = {"encoder": encoder.spec(), "step": step}
                save_tensors(directory / "policy.safetensors", tensors, spec)
    target = create_encoder("lenet", SHAPE)
    report = load_into(target, tmp_path / "run")
    assert equal(target, new)
    assert sorted(report.unused) == ["action_net.bias", "q_net_target.w"]
    load_into(target, run.checkpoints()[0] / "policy.safetensors")
    assert equal(target, old)
    assert 'of encoder "lenet"' in refusal_of_run(tmp_path / "run")


def refusal_of_run(run: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_into(create_encoder("nature", SHAPE), run)
    return str(caught.value)


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}):
        pass
    assert "no whole checkpoint" in refusal(tmp_path / "run")
    assert "is a directory, but not a run" in refusal(tmp_path)
