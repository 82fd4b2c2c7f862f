"""Encoders by name, and errors for wrong names, options and shapes."""

from __future__ import annotations

import pytest

from envs.errors import UserError
from rlcnn.encoders import Encoder, create_encoder, register_encoder

ATARI = (4, 84, 84)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("impalla", {}, 'unknown encoder "impalla".*Did you mean "impala"'),
        ("impala", {"poling": "mean"}, 'no option "poling".*Did you mean "pooling"'),
        (
            "impala",
            {"pooling": "mena"},
            "pooling must be one of .* not 'mena'. Did you mean \"mean",
        ),
        ("impala", {"width": 0}, "width must be a positive number, not 0"),
        ("impala", {"width": float("nan")}, "width must be a positive number, not nan"),
        ("nature", {"features_dim": -1}, "features_dim must be a positive whole number, not -1"),
        ("nature", {"features_dim": "512"}, "features_dim must be a positive whole number"),
        ("lenet", {"variant": "relu"}, 'variant must be one of "tanh", "lecun1998", "course"'),
        ("cifar_resnet", {"depth": 21}, r"depth must be 6n \+ 2, not 21. Did you mean 20"),
        ("cifar_resnet", {"depth": "x"}, r"depth must be 6n \+ 2, not 'x'. Did you mean 20"),
        ("cifar_resnet", {"shortcut": "gate"}, "shortcut must be one of .*, not 'gate'"),
        ("cifar_resnet", {"pooling": "4x5"}, "pooling must be .* not '4x5'. Did you mean \"4x4\""),
        ("cifar_resnet", {"pooling": "99x99"}, "finer than the feature maps: 21x21"),
        ("zfnet", {"dropout": 1}, "dropout must be a number from 0 to below 1, not 1"),
    ],
)
def test_bad_names_and_options_give_one_line(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        create_encoder(name, ATARI, **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("shape", [(84, 84), (0, 84, 84), (4, 84, 84, 1)])
def test_observations_that_are_no_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="channels, height, width"):
        create_encoder("nature", shape)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        register_encoder("nature")(type("Second", (Encoder,), {}))
