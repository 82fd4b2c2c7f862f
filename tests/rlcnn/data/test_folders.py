"""Image folders: how they are read and split, and what of them is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from support.picture_files import CLASSES, pictures, write_folder

from envs.errors import UserError
from rlcnn.data import folders
from rlcnn.data.decoding import read_image
from rlcnn.data.folders import load_folder
from rlcnn.data.images import ImageFiles, JoinedImages, Split, StoredImages


def refused(directory: Path, *said: str) -> None:
    with pytest.raises(UserError) as error:
        load_folder(directory, seed=0)
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    """A folder with train/ and test/."""
    write_folder(tmp_path / "train", pictures(4))
    write_folder(tmp_path / "test", pictures(2, seed=1))
    return tmp_path


def test_train_and_test_are_read_as_they_are(parted: Path) -> None:
    train, test = load_folder(parted, seed=0)
    assert train.tasks == test.tasks
    assert train.tasks[0].classes == tuple(sorted(CLASSES))
    assert isinstance(train, StoredImages)
    assert (len(train), len(test)) == (24, 12)
    # Files come class by class, so that only the order differs.
    own = {(str(image.tolist()), CLASSES[label]) for image, label in _pairs(pictures(4))}
    names = sorted(CLASSES)
    assert {(str(image.tolist()), names[label]) for image, label in _pairs(train)} == own
    # In memory, too, images keep the names of their files.
    files = [path.name for name in names for path in sorted((parted / "test" / name).iterdir())]
    assert [test.name(index) for index in range(len(test))] == files
    joined = JoinedImages(Split(train, test))
    assert joined.name(len(train) + 2) == files[2]


def _pairs(images: StoredImages) -> list[tuple[torch.Tensor, int]]:
    return [(image, int(label)) for image, label in zip(images.images, images.labels, strict=True)]


def test_one_folder_is_split_by_the_seed(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(10))
    splits = [load_folder(tmp_path, seed=seed) for seed in (0, 0, 1)]
    for split in splits:
        assert (len(split.train), len(split.test)) == (48, 12)
        # A fifth of each class.
        assert torch.bincount(split.test.labels[:, 0]).tolist() == [2] * 6
    train, again, other = (part.train.images.tolist() for part in splits)
    assert train == again != other
    held_out = splits[0].test.images.tolist()
    assert not any(image in train for image in held_out)


def test_grey_images_stay_grey_unless_colour_is_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(4, channels=1))
    assert load_folder(tmp_path, seed=0).train.image_shape == (1, 16, 16)
    assert load_folder(tmp_path, seed=0, channels=3).train.image_shape == (3, 16, 16)


def test_images_that_differ_in_size_stay_files(parted: Path) -> None:
    Image.new("RGB", (20, 30)).save(parted / "train" / "dark" / "large.png")
    train, test = load_folder(parted, seed=0)
    assert isinstance(train, ImageFiles)
    assert isinstance(test, ImageFiles)


def test_images_too_many_for_memory_stay_files(
    parted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = load_folder(parted, seed=0)
    monkeypatch.setattr(folders, "MAX_BYTES_IN_MEMORY", 36 * 3 * 16 * 16 - 1)
    files = load_folder(parted, seed=0)
    assert isinstance(files.train, ImageFiles)
    every = torch.arange(24)
    assert torch.equal(files.train.gather(every), stored.train.gather(every))


def test_hidden_files_are_passed_over(parted: Path) -> None:
    (parted / "train" / ".DS_Store").touch()
    (parted / "train" / "dark" / ".hidden").touch()
    assert len(load_folder(parted, seed=0).train) == 24


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "none", "does not exist")
    refused(tmp_path, "holds no images", "<class>/<image>")
    Image.new("L", (4, 4)).save(tmp_path / "image.png")
    refused(tmp_path, "no folder for each class")


def test_an_empty_class_and_a_single_one_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(3, classes=2))
    (tmp_path / "nothing").mkdir()
    refused(tmp_path, 'class "nothing" is empty', str(tmp_path / "nothing"))
    (tmp_path / "nothing").rmdir()
    shutil.rmtree(tmp_path / "dark")
    refused(tmp_path, "only one class", '"bright"')


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(1, classes=2))
    refused(tmp_path, "has one image", "none is left to hold out")


def test_train_and_test_must_fit_each_other(parted: Path) -> None:
    shutil.rmtree(parted / "test" / "left")
    refused(parted, 'class "left" is in train/, but not in test/')
    shutil.rmtree(parted / "test")
    refused(parted, "has train/, but no val/ or test/")


@pytest.mark.parametrize("names", ["train val", "Train Valid", "TRAIN TEST", "training validation"])
def test_parts_have_the_names_that_people_give_them(names: str, parted: Path) -> None:
    train, held_out = names.split()
    (parted / "train").rename(parted / train)
    (parted / "test").rename(parted / held_out)
    assert [len(part) for part in load_folder(parted, seed=0)] == [24, 12]
    assert folders.has_parts(parted)


def test_of_three_parts_the_test_is_left_alone(parted: Path) -> None:
    write_folder(parted / "val", pictures(1, seed=2))
    assert [len(part) for part in load_folder(parted, seed=0)] == [24, 6]
    # As ImageNet's, whose labels are secret.
    shutil.rmtree(parted / "test")
    (parted / "test").mkdir()
    Image.new("L", (4, 4)).save(parted / "test" / "1.png")
    assert [len(part) for part in load_folder(parted, seed=0)] == [24, 6]
    write_folder(parted / "Valid", pictures(1, seed=2))
    refused(parted, "Valid/ and val/", "only one of them can be meant")


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(5, classes=3))
    (tmp_path / "dark").rename(tmp_path / "train")
    assert load_folder(tmp_path, seed=0).train.tasks[0].classes == ("bright", "left", "train")


def test_what_comes_with_images_is_passed_over(parted: Path) -> None:
    for name in ("Thumbs.db", "labels.txt", "notes.CSV", "desktop.ini", ".DS_Store"):
        (parted / "train" / "dark" / name).write_text("no image")
        (parted / "train" / name).write_text("no image")
        (parted / name).write_text("no image")
    (parted / "train" / "__MACOSX").mkdir()
    assert [len(part) for part in load_folder(parted, seed=0)] == [24, 12]


def test_images_a_level_too_deep_are_moved_by_the_command_they_are_refused_with(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path / "flat", pictures(2, classes=2))
    for name in ("dark", "bright"):
        (tmp_path / "all of it" / name).mkdir(parents=True)
        (tmp_path / "flat" / name).rename(tmp_path / "all of it" / name / "images")
    (tmp_path / "flat").rmdir()
    refused(tmp_path, "holds only one folder", f'give "{tmp_path / "all of it"}"')
    with pytest.raises(UserError, match="lies a level too deep") as caught:
        load_folder(tmp_path / "all of it", seed=0)
    message = str(caught.value)
    command = message[message.index("for d in") : message.index("; done") + len("; done")]
    subprocess.run(["bash", "-c", command], check=True)
    assert len(load_folder(tmp_path / "all of it", seed=0).train) == 2


def test_a_folder_beside_images_is_refused(parted: Path) -> None:
    (parted / "train" / "dark" / "small").mkdir()
    refused(parted, 'class "dark" holds a folder beside its images', "small")


def test_images_beside_the_folders_are_left_out_in_a_line(
    parted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (parted / "notes.txt").write_text("of no interest")
    load_folder(parted, seed=0)
    assert not caplog.records
    image = next((parted / "train" / "dark").iterdir()).read_bytes()
    for name in ("loose\n.png", "more.JPG"):
        (parted / "train" / name).write_bytes(image)
    (parted / "one.png").write_bytes(image)
    split = load_folder(parted, seed=0)
    assert (len(split.train), len(split.test)) == (24, 12)
    assert [record.getMessage() for record in caplog.records] == [
        f'"{parted}" holds 1 image beside its folders, without a class, ignored: "one.png"',
        f'"{parted / "train"}" holds 2 images beside its folders, without a class, ignored:'
        r' "loose\n.png" ...',
    ]


def test_errors_of_the_system_give_one_line(parted: Path) -> None:
    refused(parted / ("x" * 300), "cannot read", "File name too long")
    dark = parted / "train" / "dark"
    os.symlink("nowhere.png", dark / "dead\nlink.png")
    refused(parted, r'dead\nlink.png" is not a file, or is a broken link')
    (dark / "dead\nlink.png").unlink()
    # Opened, it would be waited for.
    os.mkfifo(dark / "pipe.png")
    refused(parted, 'pipe.png" is not a file')
    (dark / "pipe.png").unlink()
    (dark / "none.png").write_bytes(b"")
    refused(parted, 'none.png" is empty')
    # A class that is not where it was.
    os.symlink("nowhere", parted / "train" / "more")
    refused(parted, 'train/more" is a broken link')


def test_folders_that_are_no_part_are_left_out_in_a_line(
    parted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("unlabelled", "val", "__pycache__"):
        write_folder(parted / name, pictures(1, seed=2))
    load_folder(parted, seed=0)
    assert [record.getMessage() for record in caplog.records] == [
        f'"{parted / "unlabelled"}" is not a part of the images, ignored: expected train/ and'
        " val/ or test/"
    ]


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_photographs_are_turned_upright(turned: int, ending: str, tmp_path: Path) -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(4, 6).numpy()
    exif = Image.Exif()
    exif[0x0112] = turned
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.{ending}", exif=exif)
    train = load_folder(tmp_path, seed=0).train
    with Image.open(tmp_path / "one" / f"0.{ending}") as image:
        upright = torch.from_numpy(np.array(ImageOps.exif_transpose(image)))
    assert isinstance(train, StoredImages)
    assert torch.equal(train[0][0], upright)
    # One that lies on its side has another size than one that stands.
    Image.fromarray(pixels.T).save(tmp_path / "one" / "2.png")
    alike = upright.shape == pixels.T.shape
    assert isinstance(load_folder(tmp_path, seed=0).train, StoredImages) == alike


def test_a_file_that_is_no_image_is_named(parted: Path) -> None:
    note = parted / "train" / "dark" / "photo.heic"
    note.write_text("read me")
    refused(parted, f'"{note}" is not an image')


def test_a_truncated_image_is_named(parted: Path) -> None:
    path = parted / "test" / "top" / "0004.png"
    path.write_bytes(path.read_bytes()[:-40])
    refused(parted, str(path), "truncated or damaged")


def test_transparent_palettes_raise_no_warning(tmp_path: Path) -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(4, 6).numpy()
    palette = Image.fromarray(pixels).convert("RGB").quantize(4)
    palette.save(tmp_path / "a.png", transparency=bytes([0, 128, 255, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").shape == (3, 4, 6)


def test_images_too_deep_under_any_names_are_moved_and_classes_never_mixed(tmp_path: Path) -> None:
    write_folder(tmp_path / "flat", pictures(2, classes=2))
    for name in ("dark", "bright"):
        (tmp_path / "it's $HOME" / name).mkdir(parents=True)
        (tmp_path / "flat" / name).rename(tmp_path / "it's $HOME" / name / f"my {name}")
    with pytest.raises(UserError) as caught:
        load_folder(tmp_path / "it's $HOME", seed=0)
    message = str(caught.value)
    command = message[message.index("for d in") : message.index("; done") + len("; done")]
    subprocess.run(["bash", "-c", command], check=True)
    assert len(load_folder(tmp_path / "it's $HOME", seed=0).train) == 2
    # Classes in parts of strange names.
    for part in ("training_set", "test_set"):
        write_folder(tmp_path / "parts" / part, pictures(2, classes=2))
    with pytest.raises(UserError, match="or train/<class>/<image>") as caught:
        load_folder(tmp_path / "parts", seed=0)
    assert "mv" not in str(caught.value)


def test_parts_without_classes_and_files_given_as_folders_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(2, classes=2))
    refused(next((tmp_path / "dark").iterdir()), "is a file, not a folder")
    (tmp_path / "dark").rename(tmp_path / "train")
    (tmp_path / "bright").rename(tmp_path / "Test")
    refused(tmp_path, "has test/, train/ without a folder for each class")
