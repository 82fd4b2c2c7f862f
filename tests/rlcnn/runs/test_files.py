"""Files are replaced whole, JSON stays JSON, and a disk's refusal is one line."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.errors import UserError
from rlcnn.runs.files import (
    check_writable,
    disk_errors,
    plain,
    read_json,
    write_atomic,
    write_json_atomic,
)


@pytest.mark.parametrize("content", [b"\x00\xff", "grüße"])
def test_a_file_is_replaced_by_what_was_given(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    write_atomic(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_write_the_disk_refuses_leaves_the_old_file_and_no_other(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with largest_file(1000), pytest.raises(UserError, match=r"cannot write .*file: .*file size"):
        write_atomic(path, b"x" * 2000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a directory"):
        write_atomic(tmp_path / "file" / "below", b"")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such directory"):
        write_atomic(tmp_path / "gone" / "file", b"")


def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES]
)
def test_what_a_disk_refuses_is_one_line_that_names_the_path(code: int) -> None:
    with (
        pytest.raises(UserError, match=r"^cannot write /some/path: [^\n]+$"),
        disk_errors("/some/path"),
    ):
        raise OSError(code, os.strerror(code))


def test_the_reason_is_found_behind_another_exception() -> None:
    shown = RuntimeError("inline_container.cc:671: unexpected pos")
    shown.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="disk is full"), disk_errors("x"):
        raise shown


@pytest.mark.parametrize(
    "message",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534",
    ],
    ids=["safetensors", "torch"],
)
def test_libraries_that_tell_a_full_disk_only_in_words_are_understood(message: str) -> None:
    with pytest.raises(UserError, match="disk"), disk_errors("x"):
        raise RuntimeError(message)


@pytest.mark.parametrize(
    "error", [ValueError("shape"), ChildProcessError(10, "no"), UserError("u")]
)
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, disk_errors("x"):
        raise error
    assert caught.value is error


def test_json_types_come_out_plain() -> None:
    value = {
        "path": Path("a/b"),
        "tuple": (1, 2.5, None, True, "s"),
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True)],
        "torch": torch.tensor(2.0),
        4: {"nested": []},
    }
    assert plain(value) == {
        "path": "a/b",
        "tuple": [1, 2.5, None, True, "s"],
        "numpy": [0.5, 3, True],
        "torch": 2.0,
        "4": {"nested": []},
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_without_a_json_form_become_null(tmp_path: Path, number: float) -> None:
    write_json_atomic(tmp_path / "x.json", {"loss": number})
    assert json.loads((tmp_path / "x.json").read_text()) == {"loss": None}


def test_a_value_without_a_json_form_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="object cannot be written"):
        plain({"x": object()})


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"\xff\xfe", b"null"])
def test_a_corrupted_json_file_is_one_line_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is (truncated or )?corrupted: [^\n]+$"):
        read_json(tmp_path / "config.json")


def test_a_missing_json_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*config\.json: No such file"):
        read_json(tmp_path / "config.json")


def test_a_missing_directory_is_made_by_the_command_in_the_message(tmp_path: Path) -> None:
    file = tmp_path / "my results (1)" / "$HOME" / "out.json"
    with pytest.raises(UserError, match=r'^--json "[^"]*" cannot be written: no such dir') as error:
        check_writable("--json", file)
    command = str(error.value).partition("; ")[2].removesuffix(" makes it")
    subprocess.run(command, shell=True, check=True)
    check_writable("--json", file)
    assert not file.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "is a directory, not a file"),
        ("-", "expected the name of a file"),
        ("directory", "is a directory, not a file"),
        ("taken/out.json", 'taken" is a file, not a directory'),
        ("taken/below/out.json", 'taken" is a file, not a directory'),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_work_begins(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "taken").touch()
    with pytest.raises(UserError) as error:
        check_writable("--json", tmp_path / name)
    assert said in str(error.value)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_directory_that_takes_no_files_is_refused() -> None:
    with pytest.raises(UserError, match=r'"/proc/x\.json" .* "/proc" takes no files'):
        check_writable("--json", Path("/proc/x.json"))
