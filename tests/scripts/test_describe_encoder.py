"""The table of an encoder's layers from the command line."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest
from support.picture_files import refused
from support.script_runs import load_script

Script = Callable[..., None]


@pytest.fixture
def describe_encoder() -> Callable[[list[str]], None]:
    return load_script("describe_encoder").main  # type: ignore[no-any-return]


def test_the_table_is_printed(describe_encoder: Script, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--encoder cifar_resnet --encoder-options shortcut none --shape 3 32 32 --classes 10"
    describe_encoder(shlex.split(options))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| layer ")
    assert lines[-1].split()[:4] == ["|", "total", "|", "|"]
    assert "269,722" in lines[-1]


@pytest.mark.parametrize(
    "options, said",
    [
        ("--encoder lnet", 'Did you mean "lenet"'),
        ("--shape 3 32", "--shape takes channels, height and width, such as 3 32 32, not 2"),
        ("--shape 1 2 3 4", "not 4 numbers"),
        ("--shape 0 32 32", "--shape 0 must be at least 1"),
        ("--shape 3 x 32", "--shape"),
        ("--classes -1", "--classes -1 must be at least 0"),
        ("--encoder resnet18:layer9", "layer9"),
        ("--encoder resnet18 --shape 4 84 84 --encoder-options frame_channels 3", "divide"),
        ("--encoder lenet --encoder-options widht 2", "widht"),
    ],
)
def test_bad_options_are_one_line(options: str, said: str, describe_encoder: Script) -> None:
    with refused(said):
        describe_encoder(shlex.split(options))
