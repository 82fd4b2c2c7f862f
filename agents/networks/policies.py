"""Actor-critic and Q heads on one shared encoder, as stable-baselines3 policies.

They differ from stable-baselines3's own in what they eat: uint8 observations go straight into the
encoder, which carries its own preprocessing, and the encoder may run in bfloat16 while the heads,
the losses and the parameters stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

from agents.networks.transfer import freeze_until, rebuild_optimizer, without_weights
from agents.sb3.arguments import ImageInput, check_policy_arguments
from agents.storage.codecs import (
    FeatureCodec,
    FeatureType,
    FrameCodec,
    PixelCodec,
    feature_dtype,
)
from envs.errors import UserError
from envs.stacking import FrameStacking
from rlcnn.accelerate.devices import PRECISIONS, Precision
from rlcnn.encoders.base import check_choice
from rlcnn.encoders.stored import features_of_stored
from rlcnn.sb3 import EncoderExtractor


def encode(
    extractor: BaseFeaturesExtractor,
    observations: torch.Tensor,
    precision: Precision,
    image_scale: float = 1.0,
) -> torch.Tensor:
    """Features of observations, float32 (batch, features_dim).

    Only the encoder runs in the reduced precision: what the heads make of its features (log
    probabilities, whose ratio PPO clips at a few percent, and Q values) stays in float32.

    Args:
        extractor: computes them.
        observations: images of 0 to 255, uint8 or float; or, for a frozen encoder, what was stored
            of their frames (:mod:`rlcnn.encoders.stored`), as channels of one pixel.
        precision: what the encoder computes in.
        image_scale: factor of the pixels for an extractor that is none of ours, and takes floats.
    """
    device = observations.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        if not isinstance(extractor, EncoderExtractor):
            # In the layout of their shape, so that whoever wrote it may view them in another.
            features = extractor(observations.float().contiguous() * image_scale)
        elif observations.dtype == torch.uint8:
            features = extractor(observations)
        elif observations.shape[2:] == (1, 1):
            features = features_of_stored(extractor.encoder, observations.flatten(1).float())
        else:
            features = extractor(observations.round().to(torch.uint8))
    return features.float()


def _image_scale(model: BaseModel) -> float:
    """What stable-baselines3 multiplies an extractor's images by."""
    return 1 / 255 if model.normalize_images and is_image_space(model.observation_space) else 1.0


def storage_spec(
    extractor: BaseFeaturesExtractor,
    stacking: FrameStacking,
    precision: Precision,
    features: FeatureType,
) -> FrameCodec:
    """What the storage of an agent holds of frames.

    Args:
        extractor: the agent's, whose encoder may be frozen.
        stacking: how its environment makes an observation of frames.
        precision: what the encoder computes in.
        features: the type to store a frozen encoder's features in.
    """
    if isinstance(extractor, EncoderExtractor) and extractor.frozen:
        return FeatureCodec(
            extractor.encoder,
            stacking,
            next(extractor.parameters()).device,
            autocast=precision == "bf16",
            dtype=feature_dtype(features, precision),
        )
    shape = extractor._observation_space.shape
    assert shape is not None
    return PixelCodec(stacking, shape)


def _constructor_parameters(
    policy: PixelActorCriticPolicy | PixelDQNPolicy, inherited: dict[str, Any]
) -> dict[str, Any]:
    own = ("precision", "encoder_lr_factor", "unfreeze_at_step", "feature_dtype")
    return {**without_weights(inherited), **{name: getattr(policy, name) for name in own}}


class InitialSeeds:
    """Where a policy's first values come from: encoder and heads from random numbers of their own.

    So heads of one shape start equal whatever the encoder before them, and what is drawn after a
    policy was made, the actions first, does not depend on how many numbers its encoder took.

    Making one draws twice from torch's global generator, and so follows ``torch.manual_seed``.

    Attributes:
        encoder: seed of the encoder's first values.
        heads: seed of the heads'.
    """

    def __init__(self) -> None:
        self.encoder, self.heads = torch.randint(2**62, (2,)).tolist()


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Seeds torch's generator of the CPU inside the block; after it, it is where it was before."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _hidden_layers(net_arch: Any, extractor: type[BaseFeaturesExtractor]) -> Any:
    """None behind an encoder; behind another extractor stable-baselines3 chooses."""
    return [] if net_arch is None and issubclass(extractor, EncoderExtractor) else net_arch


def _use_channels_last(extractor: BaseFeaturesExtractor) -> None:
    """Convolutions of uint8 images run fastest in this layout, on CPU and on GPU."""
    # Another's may call view() on what its convolutions make, which this layout does not allow.
    if isinstance(extractor, EncoderExtractor | NatureCNN):
        extractor.to(memory_format=torch.channels_last)


class PixelActorCriticPolicy(ImageInput, ActorCriticPolicy):
    """A policy head and a value head on one encoder, for PPO.

    Takes stable-baselines3's ``ActorCriticPolicy`` arguments; the ones that differ:

    Args:
        observation_space: uint8 images (channels, height, width).
        action_space: Discrete.
        lr_schedule: learning rate as a function of the progress remaining, from 1 to 0.
        features_extractor_class: :class:`EncoderExtractor`, whose ``encoder`` and options go into
            ``features_extractor_kwargs``; or any other, which takes floats of [0, 1], and of
            [0, 255] with ``normalize_images=False``, as in stable-baselines3.
        net_arch: hidden layers of the heads; none by default behind an encoder, as behind
            NatureCNN in stable-baselines3, and its default behind another extractor.
        precision: ``"bf16"`` runs the encoder in bfloat16; ``"tf32"`` lets a GPU round the inputs
            of float32 convolutions and matrix products to TF32.
        encoder_lr_factor: the encoder's learning rate as a factor of the heads': 0.1 fine-tunes.
        unfreeze_at_step: environment steps up to which the encoder's pretrained half stays as it
            is: the first update made at this step or later is the first that changes it.
        feature_dtype: what the features of a frozen encoder are stored in: ``"fp32"``, ``"bf16"``,
            ``"fp16"`` or ``"auto"``, which is ``precision``.
        **kwargs: further arguments of stable-baselines3's policy.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = EncoderExtractor,
        precision: Precision = "fp32",
        encoder_lr_factor: float = 1.0,
        unfreeze_at_step: int = 0,
        feature_dtype: FeatureType = "auto",
        **kwargs: Any,
    ) -> None:
        check_policy_arguments(
            ActorCriticPolicy,
            kwargs,
            features_extractor_class,
            kwargs.get("features_extractor_kwargs"),
            net_arch,
        )
        check_choice("precision", precision, PRECISIONS)
        check_choice("feature_dtype", feature_dtype, get_args(FeatureType))
        if kwargs.get("use_sde"):
            raise UserError("use_sde is not supported: it explores continuous actions")
        if not kwargs.get("share_features_extractor", True):
            raise UserError("share_features_extractor=False is not supported: one encoder serves")
        if kwargs.get("optimizer_kwargs") is None and "optimizer_class" not in kwargs:
            # One kernel for all tensors, with stable-baselines3's epsilon.
            kwargs["optimizer_kwargs"] = {"eps": 1e-5, "fused": True}
        self.precision: Precision = precision
        self.encoder_lr_factor = encoder_lr_factor
        self.unfreeze_at_step = unfreeze_at_step
        self.feature_dtype: FeatureType = feature_dtype
        self._initial_seeds = InitialSeeds()
        with drawing_from(self._initial_seeds.encoder):
            super().__init__(
                observation_space,
                action_space,
                lr_schedule,
                net_arch=_hidden_layers(net_arch, features_extractor_class),
                features_extractor_class=features_extractor_class,
                **kwargs,
            )
        self.image_scale = _image_scale(self)
        _use_channels_last(self.features_extractor)
        rebuild_optimizer(self, self, encoder_lr_factor)
        freeze_until(self, unfreeze_at_step)

    def _build(self, lr_schedule: Schedule) -> None:
        # Called when the encoder is there: all that is made now are heads and the optimiser.
        with drawing_from(self._initial_seeds.heads):
            super()._build(lr_schedule)

    def storage_spec(self, stacking: FrameStacking) -> FrameCodec:
        """What rollouts hold of frames: pixels, or the features of an encoder that is frozen."""
        return storage_spec(self.features_extractor, stacking, self.precision, self.feature_dtype)

    def logits_and_values(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both heads at once.

        Args:
            observations: uint8 (batch, channels, height, width).

        Returns:
            Unnormalised log probabilities, float32 (batch, actions), and values, float32 (batch,).
        """
        features = self.extract_features(observations)
        latent_pi, latent_vf = self.mlp_extractor(features)
        return self.action_net(latent_pi), self.value_net(latent_vf).squeeze(-1)

    def forward(
        self,
        obs: torch.Tensor,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions int64 (batch,), values float32 (batch, 1), their log probabilities (batch,).

        Actions are drawn from ``generator``, by default torch's own.
        """
        logits, values = self.logits_and_values(obs)
        log_probs = logits.log_softmax(dim=1)
        if deterministic:
            actions = log_probs.argmax(dim=1)
        else:
            # The exponential race: argmax(p / e), e ~ Exp(1), is a draw from p without a host sync.
            race = torch.empty_like(log_probs).exponential_(generator=generator)
            actions = (log_probs - race.log()).argmax(dim=1)
        return actions, values[:, None], log_probs.gather(1, actions[:, None]).squeeze(1)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values (batch, 1), log probabilities (batch,) and entropies (batch,), all float32."""
        assert isinstance(obs, torch.Tensor)
        logits, values = self.logits_and_values(obs)
        log_probs = logits.log_softmax(dim=1)
        entropy = -(log_probs.exp() * log_probs).sum(dim=1)
        return values[:, None], log_probs.gather(1, actions[:, None]).squeeze(1), entropy

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        assert isinstance(observation, torch.Tensor)
        return self(observation, deterministic=deterministic)[0]

    def get_distribution(self, obs: PyTorchObs) -> CategoricalDistribution:
        """The action distribution, in stable-baselines3's form."""
        assert isinstance(obs, torch.Tensor)
        assert isinstance(self.action_dist, CategoricalDistribution)
        return self.action_dist.proba_distribution(self.logits_and_values(obs)[0])

    def predict_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Values, float32 (batch, 1)."""
        assert isinstance(obs, torch.Tensor)
        return self.logits_and_values(obs)[1][:, None]

    def extract_features(
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None
    ) -> torch.Tensor:
        """Features of uint8 observations, float32 (batch, features_dim)."""
        assert isinstance(obs, torch.Tensor)
        extractor = features_extractor or self.features_extractor
        return encode(extractor, obs, self.precision, self.image_scale)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return _constructor_parameters(self, super()._get_constructor_parameters())


class PixelQNetwork(ImageInput, QNetwork):
    """Q values float32 (batch, actions) of uint8 images (batch, channels, height, width)."""

    precision: Precision = "fp32"
    feature_dtype: FeatureType = "auto"
    image_scale: float = 1.0

    def extract_features(
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor
    ) -> torch.Tensor:
        """Features of uint8 observations, float32 (batch, features_dim)."""
        assert isinstance(obs, torch.Tensor)
        return encode(features_extractor, obs, self.precision, self.image_scale)

    def storage_spec(self, stacking: FrameStacking) -> FrameCodec:
        """What a replay holds of frames: pixels, or the features of an encoder that is frozen."""
        return storage_spec(self.features_extractor, stacking, self.precision, self.feature_dtype)


class PixelDQNPolicy(ImageInput, DQNPolicy):
    """An online and a target Q network, each with an encoder of its own, for DQN.

    Takes stable-baselines3's ``DQNPolicy`` arguments; the ones that differ:

    Args:
        observation_space: uint8 images (channels, height, width).
        action_space: Discrete.
        lr_schedule: learning rate as a function of the progress remaining, from 1 to 0.
        features_extractor_class: :class:`EncoderExtractor`, whose ``encoder`` and options go into
            ``features_extractor_kwargs``; or any other, which takes floats of [0, 1], and of
            [0, 255] with ``normalize_images=False``, as in stable-baselines3.
        net_arch: hidden layers of the head; none by default behind an encoder, and
            stable-baselines3's default behind another extractor.
        precision: ``"bf16"`` runs the encoders in bfloat16; ``"tf32"`` lets a GPU round the inputs
            of float32 convolutions and matrix products to TF32.
        encoder_lr_factor: the encoder's learning rate as a factor of the head's: 0.1 fine-tunes.
        unfreeze_at_step: environment steps up to which the encoder's pretrained half stays as it
            is: the first update made at this step or later is the first that changes it.
        feature_dtype: what the features of a frozen encoder are stored in: ``"fp32"``, ``"bf16"``,
            ``"fp16"`` or ``"auto"``, which is ``precision``.
        **kwargs: further arguments of stable-baselines3's policy.
    """

    q_net: PixelQNetwork
    q_net_target: PixelQNetwork

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = EncoderExtractor,
        precision: Precision = "fp32",
        encoder_lr_factor: float = 1.0,
        unfreeze_at_step: int = 0,
        feature_dtype: FeatureType = "auto",
        **kwargs: Any,
    ) -> None:
        check_policy_arguments(
            DQNPolicy,
            kwargs,
            features_extractor_class,
            kwargs.get("features_extractor_kwargs"),
            net_arch,
        )
        check_choice("precision", precision, PRECISIONS)
        check_choice("feature_dtype", feature_dtype, get_args(FeatureType))
        if kwargs.get("optimizer_kwargs") is None and "optimizer_class" not in kwargs:
            kwargs["optimizer_kwargs"] = {"fused": True}
        self.precision: Precision = precision
        self.encoder_lr_factor = encoder_lr_factor
        self.unfreeze_at_step = unfreeze_at_step
        self.feature_dtype: FeatureType = feature_dtype
        self._initial_seeds = InitialSeeds()
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=_hidden_layers(net_arch, features_extractor_class),
            features_extractor_class=features_extractor_class,
            **kwargs,
        )
        rebuild_optimizer(self, self.q_net, encoder_lr_factor)
        freeze_until(self.q_net, unfreeze_at_step)

    def make_q_net(self) -> PixelQNetwork:
        """A Q network with an encoder of its own, on this policy's device."""
        with drawing_from(self._initial_seeds.encoder):
            net_args = self._update_features_extractor(self.net_args, features_extractor=None)
        with drawing_from(self._initial_seeds.heads):
            network = PixelQNetwork(**net_args)
        network.precision, network.feature_dtype = self.precision, self.feature_dtype
        network.image_scale = _image_scale(network)
        _use_channels_last(network.features_extractor)
        return network.to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return _constructor_parameters(self, super()._get_constructor_parameters())
