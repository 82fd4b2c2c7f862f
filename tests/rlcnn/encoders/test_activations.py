"""The option ``activation`` of encoders."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.picture_files import images
from torch import nn

from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.encoders.activations import GAINS
from rlcnn.weights.load import load_encoder, load_into, save_encoder

SHAPE = (4, 84, 84)


def test_the_gain_keeps_the_mean_square_of_normal_values() -> None:
    z = np.linspace(-9, 9, 200_001)
    density = np.exp(-np.square(z) / 2) / math.sqrt(2 * math.pi)
    for name, function in (("relu", nn.ReLU()), ("elu", nn.ELU())):
        squares = function(torch.as_tensor(z)).square().numpy()
        mean_square = float((squares * density).sum() * (z[1] - z[0]))
        assert GAINS[name] == pytest.approx(1 / math.sqrt(mean_square), rel=1e-4)  # type: ignore[index]


@pytest.mark.parametrize(("name", "parameters"), [("nature", 1_684_128), ("impala", 1_089_232)])
def test_elu_takes_relus_place(name: str, parameters: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, plain = create_encoder(name, SHAPE, activation="elu"), create_encoder(name, SHAPE)
    assert encoder.num_parameters() == plain.num_parameters() == parameters
    kinds = [type(module) for module in encoder.modules()]
    assert nn.ReLU not in kinds
    assert kinds.count(nn.ELU) == sum(type(module) is nn.ReLU for module in plain.modules())
    seen = images(2, *SHAPE)
    features = encoder(seen)
    assert -1 < features.min() < 0
    # The same parameters with each ReLU replaced compute the same.
    plain.load_state_dict(encoder.state_dict())
    for parent in list(plain.modules()):
        for child, module in parent.named_children():
            if isinstance(module, nn.ReLU):
                setattr(parent, child, nn.ELU())
    torch.testing.assert_close(plain(seen), features)

    save_encoder(encoder, tmp_path / "encoder.safetensors")
    assert torch.equal(load_encoder(tmp_path / "encoder.safetensors")(seen), features)
    with pytest.raises(UserError, match="Give --encoder-options activation elu"):
        load_into(create_encoder(name, SHAPE), tmp_path / "encoder.safetensors")


@pytest.mark.parametrize("name", ["nature", "impala"])
def test_weights_before_elu_are_orthogonal_with_its_gain(name: str) -> None:
    encoder = create_encoder(name, SHAPE, activation="elu", features_dim=16)
    weight = encoder.get_submodule("projection.linear").weight.detach()  # type: ignore[union-attr,operator]
    torch.testing.assert_close(weight @ weight.T, GAINS["elu"] ** 2 * torch.eye(16))


def test_another_activation_is_refused() -> None:
    with pytest.raises(UserError, match='activation must be one of "relu", "elu", not \'gelu\''):
        create_encoder("impala", SHAPE, activation="gelu")
