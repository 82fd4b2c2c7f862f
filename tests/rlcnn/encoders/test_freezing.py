"""Frozen layers against the order in which a forward pass calls modules."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from envs.errors import UserError
from rlcnn.encoders import Encoder, create_encoder
from rlcnn.encoders.freezing import layers_before, pretrained_layers
from rlcnn.sb3 import EncoderExtractor

ENCODERS = {
    "lenet": ((2, 36, 36), {}),
    "nature": ((2, 36, 36), {}),
    "impala": ((2, 36, 36), {"width": 0.25}),
    "cifar_resnet": ((2, 36, 36), {"depth": 8}),
    "resnet18:layer2": ((6, 36, 36), {"features_dim": 8, "pooling": "mean"}),
}


def encoder(name: str) -> Encoder:
    shape, options = ENCODERS[name]
    return create_encoder(name, shape, **options)  # type: ignore[arg-type]


@cache
def shared(name: str) -> Encoder:
    """One encoder for all tests that only read its layers."""
    return encoder(name)


def names_of(root: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    wanted = set(map(id, parameters))
    return {name for name, parameter in root.named_parameters() if id(parameter) in wanted}


def calls(root: nn.Module, whole: Encoder) -> list[str]:
    """Modules with parameters of their own, in the order in which a forward pass calls them."""
    order: list[str] = []
    own = {
        n: m for n, m in root.named_modules() if next(m.parameters(recurse=False), None) is not None
    }
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
        for name, module in own.items()
    ]
    whole.eval()
    whole(torch.zeros(2, *whole.observation_shape, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return order


@pytest.mark.parametrize(
    "name, node, first",
    [
        ("lenet", "trunk.c3", "trunk.c3"),
        ("lenet", "trunk.s2", "trunk.c3"),
        ("lenet", "projection", "projection.c5"),
        ("lenet", "observations", "trunk.c1"),
        ("nature", "trunk.conv2", "trunk.conv2"),
        ("impala", "trunk.section2", "trunk.section2.conv"),
        ("impala", "trunk.section2.block1.add", "trunk.section2.block2.conv1"),
        ("cifar_resnet", "trunk.stage2", "trunk.stage2.unit1.residual.conv1"),
        ("resnet18:layer2", "layer2", "layer2.0.conv1"),
        ("resnet18:layer2", "layer1.1.bn2", "layer1.1.bn2"),
        ("resnet18:layer2", "layer1.1.relu_1", "layer2.0.conv1"),
        ("resnet18:layer2", "layer2.0.add", "layer2.1.conv1"),
        ("resnet18:layer2", "x", "conv1"),
    ],
)
def test_what_is_called_before_the_node_is_held(name: str, node: str, first: str) -> None:
    whole = shared(name)
    root = whole.get_submodule(whole.nodes_of)
    frozen = layers_before(whole, node)
    order = calls(root, whole)
    before = order[: order.index(first)]
    owners = {name.rpartition(".")[0] for name in names_of(root, frozen.parameters)}
    assert owners == set(before)
    modules = {name for name, module in root.named_modules() if module in frozen.modules}
    assert modules >= set(before)
    assert not modules & set(order[order.index(first) :])


def test_parameters_that_no_layer_of_torchs_own_holds_are_known_by_their_own_nodes() -> None:
    # A Swin transformer hands its attention's weights to a function.
    with torch.device("meta"):
        whole = create_encoder("swin_t:features.1", (3, 32, 32), pooling="mean", features_dim=8)
    root = whole.get_submodule(whole.nodes_of)
    frozen = names_of(root, layers_before(whole, "features.1.1").parameters)
    everything = {name for name, _ in root.named_parameters()}
    assert frozen == {name for name in everything if not name.startswith("features.1.1.")}
    assert "features.1.0.attn.relative_position_bias_table" in frozen


def test_nodes_end_where_the_network_is_cut() -> None:
    assert shared("resnet18:layer2").nodes()[-1] == "layer2.1.relu_1"
    with torch.device("meta"):
        assert create_encoder("alexnet:penultimate", (3, 80, 80)).nodes()[-1] == "classifier.5"


@pytest.mark.parametrize(
    "name, node, said",
    [
        ("lenet", "trunk.c3x", 'encoder "lenet" has no node "trunk.c3x".*Did you mean "trunk.c3"'),
        ("resnet18:layer2", "layr1", 'no node "layr1" to be unfrozen from. Did you mean "layer1"'),
        ("resnet18:layer2", "layer3", 'no node "layer3"'),
        ("resnet18:layer2", "trunk.network.layer1", "no node"),
        ("resnet18:layer2", "layer2.1.relu_1", "encoder .* has no parameters to train"),
        ("lenet", ".*", "no node"),
    ],
)
def test_a_node_that_cannot_be_is_refused_in_one_line(name: str, node: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        layers_before(shared(name), node)
    assert "\n" not in str(error.value)


def test_all_that_weights_are_loaded_for_is_what_may_be_frozen() -> None:
    whole = shared("lenet")
    assert pretrained_layers(whole).parameters == list(whole.parameters())
    cut = shared("resnet18:layer2")
    names = names_of(cut, pretrained_layers(cut).parameters)
    assert names == {n for n, _ in cut.named_parameters() if n.startswith("trunk.")}


def extractor(**options: Any) -> EncoderExtractor:
    space = spaces.Box(0, 255, (6, 36, 36), np.uint8)
    return EncoderExtractor(space, encoder("resnet18:layer2"), **options)


def test_a_part_stays_frozen_through_every_change_of_mode() -> None:
    made = extractor(unfreeze_from="layer2")
    network = made.encoder.trunk.network
    for mode in (True, False, True):
        made.train(mode)
        # Those of BatchNorm are what matters.
        assert not network.bn1.training
        assert network.get_submodule("layer2.0.bn1").training == mode
    assert not network.conv1.weight.requires_grad
    assert network.get_submodule("layer2.0.conv1").weight.requires_grad
    made.set_trainable(False)
    assert not any(p.requires_grad for p in made.encoder.trunk.parameters())
    assert not network.get_submodule("layer2.0.bn1").training
    assert all(p.requires_grad for p in made.encoder.projection.parameters())
    made.set_trainable(True)
    assert not network.conv1.weight.requires_grad
    assert network.get_submodule("layer2.0.conv1").weight.requires_grad
    assert network.get_submodule("layer2.0.bn1").training


def test_what_stays_frozen_is_in_evaluation_mode_from_the_first() -> None:
    assert not any(module.training for module in extractor(frozen=True).encoder.trunk.modules())


def test_frozen_and_unfrozen_from_a_node_contradict_each_other() -> None:
    with pytest.raises(UserError, match='not unfrozen from a node, "layer2"'):
        extractor(frozen=True, unfreeze_from="layer2")
