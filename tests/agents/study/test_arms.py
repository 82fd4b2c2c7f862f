"""Arms of a study: their parts, and refused arms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.config import TrainConfig
from agents.study.arms import Arm, directory_name, parse_arm
from envs.errors import UserError

BASE = TrainConfig(encoder="lenet", encoder_options={"features_dim": 8})


def test_an_arm_without_a_network_takes_the_studys_and_its_options() -> None:
    assert parse_arm("scratch").configure(BASE) == replace(BASE, mode="train")
    assert parse_arm("frozen-random").configure(BASE) == replace(BASE, mode="frozen")


def test_an_arm_with_another_network_takes_only_the_options_it_names() -> None:
    arm = parse_arm("scratch:resnet18:layer2,pooling=mean,features_dim=64,differences=true")
    config = arm.configure(BASE)
    assert config.encoder == "resnet18:layer2"
    assert config.encoder_options == {"pooling": "mean", "features_dim": 64, "differences": True}
    assert config.weights == "none"


def test_options_of_an_arm_overrule_those_of_the_studys_own_network() -> None:
    config = parse_arm("scratch:lenet,pooling=max").configure(BASE)
    assert config.encoder_options == {"features_dim": 8, "pooling": "max"}


@pytest.mark.parametrize("kind, mode", [("frozen", "frozen"), ("finetune", "finetune")])
def test_weights_are_named_after_the_network(
    kind: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_arm(f"{kind}:resnet18:layer2@imagenet").configure(BASE)
    assert (config.encoder, config.weights, config.mode) == ("resnet18:layer2", "imagenet", mode)
    config = parse_arm(f"{kind}:some/where.safetensors").configure(BASE)
    assert config.encoder == "lenet"
    assert config.weights == str(tmp_path / "some" / "where.safetensors")


def test_a_path_may_contain_the_separators_of_an_arm(tmp_path: Path) -> None:
    path = tmp_path / "nature@2,x=1:b"
    path.touch()
    for text in (f"frozen:{path}", f"frozen:impala@{path}"):
        arm = parse_arm(text)
        assert arm.weights == str(path)
        assert parse_arm(arm.text) == arm


@pytest.mark.parametrize(
    "text",
    [
        "scratch",
        "scratch:impala",
        "frozen-random:lenet,features_dim=8,pooling=mean",
        "frozen:imagenet",
        "frozen:resnet18:layer2,differences=false@imagenet",
        "finetune:nature@runs/some where",
        "finetune:a/b.safetensors",
    ],
)
def test_an_arms_text_reads_as_the_same_arm_from_anywhere(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = parse_arm(text)
    monkeypatch.chdir(tmp_path)
    assert parse_arm(arm.text) == arm


def test_a_name_too_long_for_a_file_counts_as_missing() -> None:
    assert parse_arm(f"frozen:{'x' * 300}").weights.endswith("x")


def test_an_arm_is_called_by_the_end_of_its_path() -> None:
    assert parse_arm("frozen:runs/pong.2m").name == "frozen:pong.2m"
    assert parse_arm("frozen:runs/a/best.safetensors").named(2) == "frozen:a/best"
    assert parse_arm("frozen:/far/away/balls.safetensors").name == "frozen:balls"
    assert Arm("finetune", "impala", {}, "/far/pong1").name == "finetune:impala@pong1"


@pytest.mark.parametrize(
    "text, message",
    [
        ("scrach", 'expected scratch.* Did you mean "scratch"'),
        ("froze:imagenet", 'Did you mean "frozen:imagenet"'),
        ("scratch:", "ends where more was expected"),
        ("scratch:natur", 'encoder "natur" is unknown.*Did you mean "nature"'),
        ("scratch:nature@imagenet", 'takes no weights. Did you mean "finetune:nature@imagenet"'),
        ("frozen-random:nature@imagenet", 'Did you mean "frozen:nature@imagenet"'),
        ("frozen", 'names no weights.*"frozen-random"'),
        ("finetune", 'names no weights.*"scratch"'),
        ("frozen:resnet18", 'names an encoder but no weights.*"frozen:resnet18@imagenet"'),
        ("finetune:impala,width=2", 'such as "finetune:impala,width=2@RUN_DIR"'),
        ("frozen:resnet18@", 'no weights after the "@"'),
        ("frozen:resnt18@imagenet", 'encoder "resnt18" is unknown.*Did you mean "resnet18"'),
        ("scratch:lenet,pooling", '"pooling" is no option'),
        ("scratch:lenet,=3", '"=3" is no option'),
        ("scratch:lenet,pooling=mean,pooling=max", 'gives option "pooling" twice'),
        ("scratch,frozen-random", "Arms are separated by spaces"),
        ("scratch frozen-random", "Arms are separated by spaces"),
        ("", "is unknown: expected scratch"),
    ],
)
def test_an_invalid_arm_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_arm(text)
    assert "\n" not in str(caught.value)


def test_names_of_directories_contain_no_special_characters() -> None:
    assert directory_name("frozen:resnet18:layer2@imagenet") == "frozen-resnet18-layer2-imagenet"
    assert directory_name("support.games:Signals-v0") == "support.games-Signals-v0"
    assert directory_name("../a b") == "a-b"


def test_names_of_directories_are_never_too_long_for_a_file_system() -> None:
    names = ["frozen:" + "x" * 300 + end for end in "ab"]
    assert len({directory_name(name) for name in names}) == 2
    assert max(len(directory_name(name)) for name in names) <= 100
