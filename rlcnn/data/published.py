"""Published image sets, MNIST, Fashion-MNIST and CIFAR-10, from files or downloaded."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.errors import UserError
from rlcnn.data.folders import load_folder
from rlcnn.data.images import Split, StoredImages, Task

# Names of torchvision's classes, and of their directories.
_IDX = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


def load_idx(name: str, data_dir: Path) -> Split:
    """MNIST or Fashion-MNIST by its name, grey 28x28.

    The four idx files, compressed by gzip or not, lie in ``data_dir`` or in ``MNIST/raw`` (or
    ``FashionMNIST/raw``) below it, as torchvision stores them. Missing files are downloaded to
    there.

    Raises:
        UserError: the files are damaged, or missing and cannot be downloaded.
    """
    from torchvision import datasets

    published: Any = getattr(datasets, _IDX[name])
    places = [data_dir / _IDX[name] / "raw", data_dir]
    place = next((p for p in places if _find(p, "t10k-labels-idx1-ubyte")), None)
    if place is None:
        _download(
            name,
            lambda: published(data_dir, download=True),
            f"put its four idx files, such as train-images-idx3-ubyte.gz, into {places[0]}, or give"
            " the directory that holds them as --data-dir DIR",
        )
        place = places[0]
    # torchvision's names of digits are "0 - zero" and so on.
    task = Task("class", tuple(name.split(" - ")[0] for name in published.classes))
    parts = []
    for prefix in ("train", "t10k"):
        images = _read_idx(place, f"{prefix}-images-idx3-ubyte", 3)
        labels = _read_idx(place, f"{prefix}-labels-idx1-ubyte", 1)
        if len(images) != len(labels):
            raise UserError(f"{place}: {len(images)} {prefix} images, but {len(labels)} labels")
        parts.append(StoredImages(images[:, None], labels, [task]))
    return Split(*parts)


def load_cifar10(data_dir: Path) -> Split:
    """CIFAR-10, RGB 32x32.

    ``data_dir`` holds ``cifar-10-batches-py``, as torchvision stores it. Or it, or ``cifar10`` in
    it, is an image folder with ``train/<class>`` and ``test/<class>``. If it holds neither, the set
    is downloaded to it.

    Raises:
        UserError: the files are damaged, or missing and cannot be downloaded.
    """
    from torchvision import datasets

    if not (data_dir / "cifar-10-batches-py").is_dir():
        for folder in (data_dir, data_dir / "cifar10"):
            if (folder / "train").is_dir() and (folder / "test").is_dir():
                # A folder with parts is not split by the seed.
                return load_folder(folder, seed=0, channels=3)
        _download(
            "cifar10",
            lambda: datasets.CIFAR10(str(data_dir), download=True),
            f"put torchvision's cifar-10-batches-py into {data_dir}, or give an image folder with"
            " train/<class> and test/<class> as --data-dir DIR",
        )
    parts = []
    for train in (True, False):
        try:
            # The files are pickles. torchvision reads only files with the published MD5.
            read = datasets.CIFAR10(str(data_dir), train=train)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f'"{data_dir / "cifar-10-batches-py"}" is incomplete or damaged: remove it to'
                " download it again"
            ) from error
        images = torch.from_numpy(read.data).permute(0, 3, 1, 2).contiguous()
        task = Task("class", tuple(read.classes))
        parts.append(StoredImages(images, torch.tensor(read.targets), [task]))
    return Split(*parts)


def _download(name: str, download: Callable[[], object], instead: str) -> None:
    try:
        download()
    # A network fails in many ways; the remedy is always the same.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot download {name} ({reason}): {instead}") from error


def _find(directory: Path, name: str) -> Path | None:
    """The file or its gzip."""
    candidates = (directory / name, directory / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _read_idx(directory: Path, name: str, dimensions: int) -> torch.Tensor:
    """An array of bytes in the format of http://yann.lecun.com/exdb/mnist.

    torchvision's own reader takes no gzip, no other directory, and reports damage by assertions.
    """
    path = _find(directory, name)
    if path is None:
        raise UserError(f'"{directory / name}" does not exist, nor does its .gz')
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        magic, *shape = struct.unpack_from(f">{1 + dimensions}i", data)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f'"{path}" is truncated or damaged: {error}') from error
    header = 4 * (1 + dimensions)
    # Two bytes of zero, the type (8: unsigned bytes), and the number of dimensions.
    if magic != 0x800 + dimensions or len(data) - header != np.prod(shape):
        raise UserError(f'"{path}" is not a whole idx file of bytes in {dimensions} dimensions')
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy())
