"""Policies and extractors of stable-baselines3's users: they work, or are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.vec_env import (
    VecFrameStack,
    VecTransposeImage,
)
from stable_baselines3.dqn.policies import DQNPolicy
from support.image_agents import (
    CNN,
    LEARNED,
    LENET,
    SIZE,
    THEIRS,
    both,
    images,
    learn,
    make,
)
from torch import nn

from agents.dqn.agent import DQN
from agents.networks.policies import PixelActorCriticPolicy
from agents.ppo.agent import PPO
from envs.errors import UserError


class Flat(BaseFeaturesExtractor):
    """An extractor that takes floats, as anyone writes one."""

    largest: float = 0.0

    def __init__(self, space: Any, features_dim: int = 8) -> None:
        super().__init__(space, features_dim)
        self.linear = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, features_dim), nn.ReLU())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        assert observations.dtype == torch.float32
        Flat.largest = float(observations.max())
        return self.linear(observations)


# -- policies --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("normalize", "largest"), [(True, 1.0), (False, 255.0)])
@pytest.mark.parametrize("options", [{}, {"overlap": True}], ids=["", "overlap"])
def test_another_extractor_is_given_the_floats_of_stable_baselines3(
    algorithm: Any, normalize: bool, largest: float, options: dict[str, Any]
) -> None:
    policy = {"features_extractor_class": Flat, "normalize_images": normalize}
    make(algorithm, policy_kwargs=policy, **options).learn(LEARNED)
    assert 0.9 * largest < Flat.largest <= largest


class Viewing(BaseFeaturesExtractor):
    """An extractor that flattens by ``view``, which wants the layout of the shape."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 8)
        self.convolution = nn.Conv2d(3, 4, 8, 8)
        self.linear = nn.Linear(3 * SIZE * SIZE + 4 * 5 * 5, 8)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        maps = self.convolution(observations)
        flat = [images.view(len(images), -1) for images in (observations, maps)]
        return self.linear(torch.cat(flat, dim=1))


@both
def test_another_extractor_may_view_images_as_vectors(algorithm: Any) -> None:
    env = VecTransposeImage(VecFrameStack(images(), 3))
    learn(make(algorithm, env=env, policy_kwargs={"features_extractor_class": Viewing}))


@both
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stable_baselines3s_cnn_learns(algorithm: Any, precision: str) -> None:
    policy = {
        "features_extractor_class": NatureCNN,
        "features_extractor_kwargs": {"features_dim": 8},
        "precision": precision,
    }
    model = make(algorithm, policy_kwargs=policy).learn(LEARNED)
    assert model._n_updates


@both
def test_features_dim_is_the_encoders_option(algorithm: Any) -> None:
    policy = {"features_extractor_kwargs": {"features_dim": 24}}
    model = make(algorithm, policy_kwargs=policy).learn(LEARNED)
    assert next(m for m in model.policy.modules() if isinstance(m, nn.Linear)).out_features == 24


@both
@pytest.mark.parametrize("policy", ["class", "zip"])
def test_a_policy_of_stable_baselines3_acts_as_there(
    algorithm: Any, policy: str, tmp_path: Path
) -> None:
    theirs = make(THEIRS[algorithm], policy_kwargs=None).learn(LEARNED)
    if policy == "zip":
        theirs.save(tmp_path / "model")
        ours = algorithm.load(tmp_path / "model", env=images(), device="cpu")
    else:
        ours = make(algorithm, CNN[algorithm], policy_kwargs=None)
        ours.set_parameters(theirs.get_parameters())
    seen = np.random.default_rng(0).integers(0, 256, (64, 1, SIZE, SIZE)).astype(np.uint8)
    pixels = torch.as_tensor(seen)
    with torch.no_grad():
        if algorithm is PPO:
            pairs = [
                (m.policy.get_distribution(pixels).distribution.logits for m in (theirs, ours))
            ]
            pairs += [(m.policy.predict_values(pixels) for m in (theirs, ours))]
        else:
            pairs = [(m.q_net(pixels) for m in (theirs, ours))]
    for expected, found in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    ours.learn(LEARNED)
    ours.save(tmp_path / "again")
    algorithm.load(tmp_path / "again", device="cpu").predict(seen)


@both
def test_a_zip_with_an_encoder_of_ours_is_read(algorithm: Any, tmp_path: Path) -> None:
    from rlcnn.sb3 import EncoderExtractor

    policy = {"features_extractor_class": EncoderExtractor, **LENET}
    theirs = make(THEIRS[algorithm], policy_kwargs=policy)
    theirs.save(tmp_path / "model")
    ours = algorithm.load(tmp_path / "model", env=images(), device="cpu")
    for name, tensor in theirs.policy.state_dict().items():
        assert torch.equal(tensor, ours.policy.state_dict()[name])
    learn(ours)


@both
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("MlpPolicy", 'policy "MlpPolicy" is unknown: observations are images, so the policy is'),
        ("MultiInputPolicy", 'the policy is "CnnPolicy"'),
        (ActorCriticPolicy, 'policy ActorCriticPolicy does not fit: expected "CnnPolicy" or a sub'),
        (DQNPolicy, "policy DQNPolicy does not fit"),
        (None, "policy None does not fit"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(algorithm: Any, policy: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(algorithm, policy)


@pytest.mark.parametrize(("saves", "loads"), [(PPO, DQN), (DQN, PPO), (SB3PPO, DQN), (SB3DQN, PPO)])
def test_the_zip_of_another_algorithm_is_refused(saves: Any, loads: Any, tmp_path: Path) -> None:
    make(saves, policy_kwargs=None).save(tmp_path / "model")
    with pytest.raises(UserError, match="a file saved by another algorithm is loaded by it"):
        loads.load(tmp_path / "model", device="cpu")


@both
@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"precison": "bf16"}, 'policy_kwargs has no option "precison". Did you mean "precision"?'),
        ({"encoder": "impala"}, r'chosen by features_extractor_kwargs=dict\(encoder="impala"\)'),
        ({"features_extractor_kwargs": {"encodr": "impala"}}, 'Did you mean "encoder"?'),
        (
            {
                "features_extractor_class": NatureCNN,
                "features_extractor_kwargs": {"encoder": "impala"},
            },
            'has no option "encoder": NatureCNN takes features_dim, normalized_image',
        ),
        ({"features_extractor_class": "impala"}, "must be a subclass of BaseFeaturesExtractor"),
        ({"net_arch": "big"}, r"must be the widths of hidden layers, \[64, 64\]"),
        ({"net_arch": 64}, "must be the widths of hidden layers"),
        ({"net_arch": [0]}, "must be the widths of hidden layers"),
        ({"net_arch": {"pi": [8], "q": [8]}}, "must be the widths of hidden layers"),
        ({"net_arch": {"pi": 64, "vf": 64}}, "must be the widths of hidden layers"),
        ({"net_arch": [32, {"pi": [8], "vf": [8]}]}, "must be the widths of hidden layers"),
        ([1], "policy_kwargs must be a dict"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_a_policy_is_refused(algorithm: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        make(algorithm, policy_kwargs=kwargs)
    assert "\n" not in str(refusal.value)


@both
@pytest.mark.parametrize(
    "kwargs",
    [
        {"net_arch": [16, 8], "activation_fn": nn.ReLU},
        {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.9}},
        {"optimizer_kwargs": {"eps": 1e-4}},
    ],
    ids=str,
)
def test_the_arguments_of_stable_baselines3s_policies_serve(algorithm: Any, kwargs: Any) -> None:
    model = make(algorithm, policy_kwargs={**LENET, **kwargs})
    optimizer = model.policy.optimizer
    assert isinstance(optimizer, kwargs.get("optimizer_class", torch.optim.Adam))
    for name, value in kwargs.get("optimizer_kwargs", {}).items():
        assert optimizer.param_groups[0][name] == value
    if "net_arch" in kwargs:
        assert {16, 8} <= {m.out_features for m in model.policy.modules() if is_linear(m)}
    learn(model)


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


@pytest.mark.parametrize("net_arch", [{"pi": [16], "vf": [8, 4]}, [{"pi": [16]}]], ids=str)
@pytest.mark.filterwarnings("ignore:As shared layers")
def test_each_head_may_have_layers_of_its_own(net_arch: Any) -> None:
    model = make(PPO, policy_kwargs={**LENET, "net_arch": net_arch, "ortho_init": False})
    sizes = net_arch if isinstance(net_arch, dict) else net_arch[0]
    heads = {"pi": "policy_net", "vf": "value_net"}
    for name, widths in sizes.items():
        head = getattr(model.policy.mlp_extractor, heads[name])
        assert [layer.out_features for layer in head if is_linear(layer)] == widths
    learn(model)


def test_a_policy_with_heads_of_its_own_learns() -> None:
    class Heads(nn.Module):
        latent_dim_pi = latent_dim_vf = 4

        def __init__(self, features: int) -> None:
            super().__init__()
            self.actor, self.critic = nn.Linear(features, 4), nn.Linear(features, 4)

        def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.actor(features), self.critic(features)

    class Own(PixelActorCriticPolicy):
        def _build_mlp_extractor(self) -> None:
            self.mlp_extractor = Heads(self.features_dim)  # type: ignore[assignment]

    model = make(PPO, Own)
    assert model.policy.action_net.in_features == Heads.latent_dim_pi
    learn(model)
    with pytest.raises(UserError, match="head_lr_factor is not supported for a policy with heads"):
        make(PPO, Own, policy_kwargs={**LENET, "head_lr_factor": 0.5})
