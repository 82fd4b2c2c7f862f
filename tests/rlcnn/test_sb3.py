"""Encoders inside plain stable-baselines3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.envs import FakeImageEnv
from torch import nn

from envs.errors import UserError
from rlcnn.encoders import Encoder, create_encoder, list_encoders
from rlcnn.sb3 import EncoderExtractor
from rlcnn.weights.load import save_encoder

SHAPE = (4, 40, 40)
SPACE = spaces.Box(0, 255, SHAPE, np.uint8)
# What sees 40x40 pixels.
SMALL_ENCODERS = [
    *(name for name in list_encoders() if name not in ("alexnet_2012", "zfnet")),
    "squeezenet1_1:features.4",
]
SMALL: dict[type[BaseAlgorithm], dict[str, Any]] = {
    PPO: {"n_steps": 16, "batch_size": 8, "n_epochs": 1},
    A2C: {"n_steps": 8},
    DQN: {"buffer_size": 64, "learning_starts": 8, "batch_size": 4, "target_update_interval": 8},
}


def agent(algorithm: type[BaseAlgorithm], env: Any = None, **kwargs: Any) -> BaseAlgorithm:
    """The algorithm as anybody would make it: all of policy_kwargs but the extractor default."""
    env = env or FakeImageEnv(screen_height=40, screen_width=40, n_channels=4, channel_first=True)
    policy_kwargs = {
        "features_extractor_class": EncoderExtractor,
        "features_extractor_kwargs": kwargs,
    }
    make: Any = algorithm
    return make(
        "CnnPolicy", env, policy_kwargs=policy_kwargs, device="cpu", seed=0, **SMALL[algorithm]
    )


def encoders(model: BaseAlgorithm) -> list[Encoder]:
    return [m for m in model.policy.modules() if isinstance(m, Encoder)]


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Encoder, Path]]:
    """Each encoder with non-zero biases, and the file its weights are in."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for name in SMALL_ENCODERS:
        encoder = create_encoder(name, SHAPE)
        for parameter in encoder.parameters():
            nn.init.normal_(parameter, std=0.1)
        save_encoder(encoder, folder / f"{name}.safetensors")
        files[name] = (encoder, folder / f"{name}.safetensors")
    return files


@pytest.mark.parametrize(
    "algorithm, networks",
    # A2C has PPO's policy.
    [(PPO, 1), pytest.param(A2C, 1, marks=pytest.mark.slow), (DQN, 2)],
)
@pytest.mark.parametrize("name", SMALL_ENCODERS)
def test_loaded_weights_are_bit_equal_after_construction(
    algorithm: type[BaseAlgorithm],
    networks: int,
    name: str,
    saved: dict[str, tuple[Encoder, Path]],
) -> None:
    encoder, path = saved[name]
    found = encoders(agent(algorithm, encoder=name, weights=path))
    assert len(found) == networks
    assert all(equal(one, encoder) for one in found)


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_an_encoder_passed_in_is_copied(
    algorithm: type[BaseAlgorithm], saved: dict[str, tuple[Encoder, Path]]
) -> None:
    encoder, _ = saved["lenet"]
    model = agent(algorithm, encoder=encoder)
    everyone = [encoder, *encoders(model)]
    assert all(equal(one, encoder) for one in everyone)
    pointers = {p.data_ptr() for one in everyone for p in one.parameters()}
    assert len(pointers) == len(everyone) * len(list(encoder.parameters()))


def test_separate_extractors_both_keep_loaded_weights(
    saved: dict[str, tuple[Encoder, Path]],
) -> None:
    encoder, path = saved["nature"]
    env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=4, channel_first=True)
    policy_kwargs = {
        "features_extractor_class": EncoderExtractor,
        "features_extractor_kwargs": {"weights": path},
        "share_features_extractor": False,
    }
    model = PPO("CnnPolicy", env, policy_kwargs=policy_kwargs, device="cpu")
    assert model.policy.pi_features_extractor is not model.policy.vf_features_extractor
    assert all(equal(one, encoder) for one in encoders(model))


def test_other_functions_still_apply() -> None:
    extractor = EncoderExtractor(SPACE, "lenet")
    seen: list[nn.Module] = []
    extractor.apply(seen.append)
    assert extractor.encoder in seen
    assert extractor in seen


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_learns_saves_and_loads(algorithm: type[BaseAlgorithm], tmp_path: Path) -> None:
    model = agent(algorithm, encoder="impala", encoder_options={"width": 0.25, "pooling": "mean"})
    before = [p.detach().clone() for p in encoders(model)[0].parameters()]
    model.learn(32)
    after = list(encoders(model)[0].parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", device="cpu")
    assert equal(loaded.policy, model.policy)


def test_channels_last_images_arrive_as_stable_baselines3_transposes_them() -> None:
    env = FakeImageEnv(screen_height=40, screen_width=48, n_channels=3)
    model = agent(PPO, env, encoder="lenet")
    assert encoders(model)[0].observation_shape == (3, 40, 48)
    observation, _ = env.reset(seed=0)
    assert env.action_space.contains(int(model.predict(observation)[0]))


# What stable-baselines3 hands over, against the uint8 it came from.


class Echo(Encoder):
    """Hands back the uint8 it was given, to be compared."""

    name = "echo"

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(shape, {})
        self.features_dim = int(np.prod(shape))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        assert observations.dtype == torch.uint8
        return observations.flatten(1)


LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def image_space(high: float, dtype: type) -> spaces.Box:
    return spaces.Box(0, high, (1, 16, 16), dtype)


@pytest.mark.parametrize(
    "space, normalized_image, observations",
    [
        (image_space(255, np.uint8), False, LEVELS.float() / 255.0),
        (image_space(255, np.uint8), True, LEVELS.float()),
        (image_space(1, np.float32), False, LEVELS.float() / 255.0),
        (image_space(1, np.float32), True, LEVELS.double() / 255.0),
        (image_space(255, np.float32), False, LEVELS.float()),
        (image_space(255, np.uint8), False, LEVELS),
        (image_space(255, np.uint8), True, LEVELS),
    ],
)
def test_all_256_values_are_restored_exactly(
    space: spaces.Box, normalized_image: bool, observations: torch.Tensor
) -> None:
    extractor = EncoderExtractor(space, Echo((1, 16, 16)), normalized_image=normalized_image)
    assert torch.equal(extractor(observations), LEVELS.flatten(1))


@pytest.mark.parametrize("normalize_images", [True, False])
def test_a_policy_sees_the_observation_itself(normalize_images: bool) -> None:
    env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=4, channel_first=True)
    policy_kwargs: dict[str, Any] = {
        "features_extractor_class": EncoderExtractor,
        "features_extractor_kwargs": {
            "encoder": Echo(SHAPE),
            "normalized_image": not normalize_images,
        },
        "normalize_images": normalize_images,
    }
    model = PPO("CnnPolicy", env, policy_kwargs=policy_kwargs, device="cpu")
    observation = torch.as_tensor(env.reset(seed=0)[0])[None]
    assert torch.equal(model.policy.extract_features(observation), observation.flatten(1))


def test_a_scale_that_contradicts_the_policys_is_refused_at_first_sight() -> None:
    extractor = EncoderExtractor(SPACE, "lenet")
    extractor(torch.zeros(1, *SHAPE))  # black: fits either
    with pytest.raises(UserError, match=r"reach 200 .*needs normalized_image=True"):
        extractor(torch.full((1, *SHAPE), 200.0))
    extractor = EncoderExtractor(SPACE, "lenet", normalized_image=True)
    with pytest.raises(UserError, match="fractions"):
        extractor(torch.full((1, *SHAPE), 0.5))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (84, 84), np.uint8),
        spaces.Box(-1, 1, SHAPE, np.float32),
        spaces.Discrete(4),
        spaces.Dict({"image": SPACE}),
    ],
)
def test_spaces_without_images_are_refused(space: spaces.Space) -> None:
    with pytest.raises(UserError, match="EncoderExtractor needs images"):
        EncoderExtractor(space)


def test_an_encoder_of_another_shape_or_with_options_is_refused() -> None:
    with pytest.raises(UserError, match=r"built for observations \(1, 40, 40\)"):
        EncoderExtractor(SPACE, create_encoder("lenet", (1, 40, 40)))
    with pytest.raises(UserError, match="encoder_options"):
        EncoderExtractor(SPACE, create_encoder("lenet", SHAPE), {"variant": "course"})
