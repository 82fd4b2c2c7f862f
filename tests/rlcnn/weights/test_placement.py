"""Tensors that fit an encoder, and those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.weights import RGB, SHAPE, equal, refusal
from torchvision import models

from envs.errors import UserError
from rlcnn.encoders import create_encoder, list_architectures
from rlcnn.weights.load import load_into, save_encoder
from rlcnn.weights.nearest import without_values
from rlcnn.weights.placement import fill


@pytest.mark.parametrize("name", ["lenet", "impala"])
def test_foreign_weights_name_the_encoder_they_fit(name: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(create_encoder(name, SHAPE).state_dict(), path)
    assert refusal(path).endswith(f'It fits encoder "{name}".')
    save_file(create_encoder(name, (4, 64, 64)).state_dict(), path)
    assert refusal(path).endswith(f'It is nearest to encoder "{name}".')


def test_missing_left_over_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    tensors = create_encoder("nature", SHAPE).state_dict()
    del tensors["trunk.conv1.bias"]
    tensors["head.weight"] = torch.zeros(3)
    tensors["trunk.conv2.bias"] = torch.zeros(65)
    save_file(tensors, tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors")
    assert "missing: trunk.conv1.bias;" in message
    assert "left over: head.weight;" in message
    assert "of another shape: trunk.conv2.bias (65,) instead of (64,)." in message


def test_another_image_size_shows_in_shapes(tmp_path: Path) -> None:
    save_encoder(create_encoder("nature", (4, 64, 64)), tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors")
    assert "for observations (4, 40, 40): of another shape: projection.linear.weight" in message


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "module.encoder.", "a.b."])
def test_a_prefix_of_all_names_is_removed_and_reported(prefix: str, tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    state = {f"{prefix}{name}": tensor for name, tensor in source.state_dict().items()}
    path = tmp_path / "e.safetensors"
    # What has another prefix, such as a classifier beside it, is not needed.
    for more in ({}, {"fc.bias": torch.zeros(2)}):
        save_file(state | more, path)
        report = load_into(target, path)
        assert equal(source, target)
        assert (report.prefix, report.unused) == (prefix, tuple(more))
        assert f'names without their prefix "{prefix}"' in str(report)
        assert report.to_json()["prefix"] == prefix


def test_two_encoders_in_one_file_are_refused(tmp_path: Path) -> None:
    one, other = (create_encoder("lenet", SHAPE).state_dict() for _ in range(2))
    both = {f"student.{n}": t for n, t in one.items()} | {
        f"teacher.{n}": t for n, t in other.items()
    }
    save_file(both, tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors", create_encoder("lenet", SHAPE))
    assert 'more than once, with the prefixes "student.", "teacher."' in message


def test_missing_tensors_do_not_change_the_names_of_others(tmp_path: Path) -> None:
    state = create_encoder("lenet", SHAPE).state_dict()
    save_file({"trunk.c1.bias": state["trunk.c1.bias"]}, tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors", create_encoder("lenet", SHAPE))
    assert "missing: trunk.c1.weight, trunk.c3.weight" in message
    assert "left over" not in message


def test_a_prefix_hides_no_other_network(tmp_path: Path) -> None:
    state = models.squeezenet1_0(weights=None).state_dict()
    save_file({f"module.{n}": t for n, t in state.items()}, tmp_path / "e.safetensors")
    assert refusal(tmp_path / "e.safetensors").endswith('It fits encoder "squeezenet1_0".')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    state = create_encoder("lenet", SHAPE).state_dict()
    weight = state["trunk.c1.weight"].double()
    weight[0, 0, 0, 0] = value
    state["trunk.c1.weight"] = weight
    save_file({f"module.{n}": t for n, t in state.items()}, tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors", create_encoder("lenet", SHAPE))
    assert message.endswith(
        "not finite (NaN or infinite), as a training that diverged"
        " leaves them: in: trunk.c1.weight."
    )


def refusals_of(networks: list[str], tried: dict[str, tuple[int, int, int]]) -> None:
    """Tries whole networks without values in encoders, none of which is theirs."""
    targets = [create_encoder(name, shape) for name, shape in tried.items()]
    for name in networks:
        with without_values():
            meta = models.get_model(name, weights=None).state_dict()
        state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in meta.items()}
        for target in targets:
            if target.name.split(":")[0] == name:
                continue
            with pytest.raises(UserError) as caught:
                fill(target, state, "the file")
            message = str(caught.value)
            assert "\n" not in message
            # Files of these two have auxiliary classifiers, which the encoder has not.
            fits = "is nearest to" if name in ("googlenet", "inception_v3") else "fits"
            assert message.endswith(f'It {fits} encoder "{name}".')


def test_networks_that_compute_their_widths_are_named_too() -> None:
    refusals_of(["regnet_x_400mf", "googlenet"], {"nature": SHAPE})


@pytest.mark.slow
def test_every_published_network_is_named_where_it_does_not_fit() -> None:
    tried = {"nature": SHAPE, "impala": SHAPE, "squeezenet1_0": RGB}
    refusals_of(list_architectures(), tried)
