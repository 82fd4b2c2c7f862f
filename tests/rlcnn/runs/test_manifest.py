"""A sealed directory knows whether it is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlcnn.runs import manifest


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"weights")
    (tmp_path / "empty").touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "replay").write_bytes(b"replay")
    manifest.seal(tmp_path)
    return tmp_path


@pytest.mark.parametrize("files", [(), None])
def test_what_was_sealed_is_whole(sealed: Path, files: tuple[str, ...] | None) -> None:
    assert manifest.flaw(sealed, files) is None


@pytest.mark.parametrize("files", [(), None])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: (d / "weights").write_bytes(b"weig"), "weights has 4 bytes instead of 7"),
        (lambda d: (d / "empty").write_bytes(b"x"), "empty has 1 bytes instead of 0"),
        (lambda d: (d / "inner" / "replay").unlink(), "replay is missing"),
        (lambda d: (d / manifest.NAME).unlink(), "manifest.json is missing"),
        (lambda d: (d / manifest.NAME).write_text('{"fil'), "truncated or corrupted"),
        (lambda d: (d / manifest.NAME).write_text("{}"), "lists no files"),
        (
            lambda d: (d / manifest.NAME).write_text('{"files": {"weights": 3}}'),
            "manifest.json is corrupted",
        ),
    ],
)
def test_damage_to_sizes_and_manifest_is_always_seen(
    sealed: Path, damage: Callable[[Path], object], said: str, files: tuple[str, ...] | None
) -> None:
    damage(sealed)
    assert said in str(manifest.flaw(sealed, files))


def test_a_flipped_bit_is_seen_by_reading_the_contents(sealed: Path) -> None:
    (sealed / "weights").write_bytes(b"weightz")
    assert manifest.flaw(sealed, ()) is None
    assert manifest.flaw(sealed) == "the contents of weights are corrupted"


def test_only_the_files_named_are_read(sealed: Path) -> None:
    (sealed / "weights").write_bytes(b"weightz")
    assert manifest.flaw(sealed, ["inner/replay"]) is None
    assert manifest.flaw(sealed, ["weights"]) == "the contents of weights are corrupted"
    (sealed / "weights").write_bytes(b"w")
    assert manifest.flaw(sealed, []) == "weights has 1 bytes instead of 7"


def test_a_dropped_file_leaves_a_whole_directory(sealed: Path) -> None:
    manifest.drop(sealed, "weights")
    manifest.drop(sealed, "never-there")
    assert not (sealed / "weights").exists()
    assert manifest.flaw(sealed) is None


def test_a_drop_that_was_cut_short_leaves_a_whole_directory(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            manifest.drop(sealed, "weights")
    assert manifest.flaw(sealed) is None
    manifest.drop(sealed, "weights")
    assert not (sealed / "weights").exists()
