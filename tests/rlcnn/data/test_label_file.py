"""Labels in a CSV: what is read of it, and what is refused, with the line named."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from envs.errors import UserError
from rlcnn.data.images import Task
from rlcnn.data.label_file import load_labelled_files

TASK = Task("class", ("ant", "bee", "cat"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        Image.new("RGB", (8 + number, 9), (10 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


# With more columns in another order, and as spreadsheets write it.
@pytest.mark.parametrize(
    "text, encoding",
    [
        ("file,class_index\n2.png,0\n0.png,2\n", "utf-8"),
        ('name,class_index,file\n"an, ant",0,2.png\ncat, 2,0.png\n', "utf-8"),
        ("file,class_index\r\n2.png,0\r\n0.png,2\r\n", "utf-8-sig"),
        ('name;file;class_index\r\n"an, ant";2.png;0\r\ncat;0.png;2\r\n', "utf-8-sig"),
        ("file\tclass_index\n2.png\t0\n0.png\t2\n", "utf-8"),
        ("file\tclass_index\tname\r\n2.png\t0\tété\r\n0.png\t2\tx\r\n", "utf-16"),
        ("file;class_index;name\r\n2.png;0;naïve € x\r\n0.png;2;x\r\n", "cp1252"),
        ("file, class_index , name\n2.png, 0, a\n0.png, 2, b\n", "latin-1"),
        ('file,class_index,"a;b;c;d"\n2.png,0,x\n0.png,2,x\n', "utf-8"),
        ('file;class_index;"a, b, c, d"\n2.png;0;x\n0.png;2;x\n', "utf-8"),
        ("file,class_index\r2.png,0\r0.png,2\r", "utf-8"),
        ("sep=;\r\n\r\nfile;class_index\r\n2.png;0\r\n0.png;2\r\n", "utf-8"),
    ],
)
def test_images_have_the_classes_of_their_rows(folder: Path, text: str, encoding: str) -> None:
    images = load_labelled_files(write(folder, text, encoding), folder, TASK)
    assert [path.name for path in images.paths] == ["2.png", "0.png"]
    assert images.labels[:, 0].tolist() == [0, 2]
    assert images[0].shape == (3, 9, 10)
    assert int(images[0][0].max()) == 20


def test_the_csv_is_found_beside_the_images(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "file,class_index\n0.png,1\n")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert len(load_labelled_files(Path("labels.csv"), folder, TASK)) == 1


@pytest.mark.parametrize(
    "text, said",
    [
        ("", 'no column "file": its columns are none'),
        ("file,class\n0.png,1\n", 'no column "class_index".* Did you mean "class"'),
        ("fiel,class_index\n0.png,1\n", 'no column "file".* Did you mean "fiel"'),
        ("file,class_index\n", "names no image"),
        ("file,class_index\n0.png,1\n1.png,3\n", "line 3: class_index 3 lies beyond the 3 classes"),
        (f"\n\nfile,class_index\n0.png,{'9' * 5000}\n", "line 4: class_index 999.* lies beyond"),
        ("file,class_index\n0.png,-1\n", 'line 2: class_index "-1" is not a whole number from 0'),
        ("file,class_index\n0.png,bee\n", 'line 2: class_index "bee" is not a whole number'),
        ("file,class_index\n0.png\n", 'line 2: class_index "" is not a whole number'),
        ("file,class_index\n4.png,1\n", 'line 2: there is no file "4.png" in .* Did you mean'),
        (f"file,class_index\n{'x' * 5000},1\n", 'line 2: there is no file "xxx'),
        ("file,class_index\n,1\n", 'line 2: there is no file ""'),
    ],
)
def test_a_bad_csv_is_one_line(folder: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_labelled_files(write(folder, text), folder, TASK)
    assert "\n" not in str(error.value)
    assert "labels.csv" in str(error.value)


def test_what_is_no_csv_and_what_is_not_there_are_refused(folder: Path) -> None:
    (folder / "labels.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x81")
    with pytest.raises(UserError, match="is not a CSV file"):
        load_labelled_files(folder / "labels.csv", folder, TASK)
    with pytest.raises(UserError, match=r'cannot read "none.csv": No such file'):
        load_labelled_files(Path("none.csv"), folder, TASK)
    with pytest.raises(UserError, match=r'image folder ".*none" does not exist'):
        load_labelled_files(folder / "labels.csv", folder / "none", TASK)
