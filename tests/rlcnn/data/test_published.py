"""Published sets: read where they lie, refused in one line where they do not."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
import torch
from support.picture_files import pictures, write_folder, write_mnist

from envs.errors import UserError
from rlcnn.data.by_name import load_data
from rlcnn.data.images import StoredImages


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def refused(name: str, data_dir: Path, *said: str) -> None:
    with pytest.raises(UserError) as error:
        load_data(name, data_dir, seed=0)
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_mnist_is_read_wherever_its_files_lie(compressed: bool, below: str, tmp_path: Path) -> None:
    write_mnist(tmp_path / below, compressed=compressed)
    train, test = load_data("mnist", tmp_path, seed=0)
    assert isinstance(train, StoredImages)
    assert train.images.shape == (60, 1, 28, 28)
    assert len(test) == 20
    assert train.tasks[0].classes == tuple("0123456789")
    assert train.labels[:, 0].tolist() == [i % 10 for i in range(60)]


def test_fashion_mnist_has_names_for_its_classes(tmp_path: Path) -> None:
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    assert load_data("fashion_mnist", tmp_path, seed=0).train.tasks[0].classes[9] == "Ankle boot"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_without_a_network_the_line_says_what_to_do(name: str, tmp_path: Path) -> None:
    refused(name, tmp_path, f"cannot download {name}", str(tmp_path), "--data-dir DIR")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, compressed=False)
    path = tmp_path / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused("mnist", tmp_path, f'"{path}" is not a whole idx file')
    path.write_bytes(b"\x00")
    refused("mnist", tmp_path, f'"{path}" is truncated or damaged')
    path.unlink()
    refused("mnist", tmp_path, "train-images-idx3-ubyte", "does not exist")


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    refused("mnist", tmp_path, f'"{path}" is truncated or damaged')


def test_labels_beyond_the_ten_digits_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, compressed=False)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    refused("mnist", tmp_path, "image 59 has label 10", "10 classes")


@pytest.mark.parametrize("below", ["", "cifar10"])
def test_cifar10_may_be_an_image_folder(below: str, tmp_path: Path) -> None:
    write_folder(tmp_path / below / "train", pictures(2))
    write_folder(tmp_path / below / "test", pictures(1))
    assert load_data("cifar10", tmp_path, seed=0).train.image_shape == (3, 16, 16)


def test_incomplete_cifar10_files_are_refused(tmp_path: Path) -> None:
    # What is not the published file is never unpickled.
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused("cifar10", tmp_path, "cifar-10-batches-py", "incomplete or damaged")


@pytest.mark.parametrize(
    "name, said",
    [
        ("mnits", 'Did you mean "mnist"?'),
        ("cifar100", 'Did you mean "cifar10"?'),
        ("folder:", "expected folder:DIR"),
        ("atari:", "expected atari:GAME"),
        ("atari:Pong,", "expected atari:GAME"),
        ("floder:pictures", 'Did you mean "folder:"?'),
        ("", "expected one of mnist"),
    ],
)
def test_unknown_data_are_refused(name: str, said: str) -> None:
    refused(name, Path("data"), f'--data "{name}" is unknown', said)


def test_a_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    refused("mnist", tmp_path / "file", "--data-dir", "is a file, not a directory")


def test_the_real_mnist_is_whole(real_data: Path) -> None:
    train, test = load_data("mnist", real_data / "mnist", seed=0)
    assert (len(train), len(test)) == (60_000, 10_000)
    # How often each digit occurs (LeCun's page, and any account of the set).
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(train.labels[:, 0]).tolist() == counts
