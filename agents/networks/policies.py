"""Actor-critic and Q heads on one shared encoder, as stable-baselines3 policies.

Unlike stable-baselines3's own they take uint8 observations: the encoder carries its own
preprocessing. It may run in bfloat16; heads, losses and parameters stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn

from agents.networks.head_options import HeadOptions
from agents.networks.heads import Head, PlainHead, first_layer, make_head
from agents.networks.transfer import freeze_until, rebuild_optimizer, without_weights
from agents.sb3.arguments import POLICY_OPTIONS, ImageInput, check_policy_arguments
from agents.storage.codecs import FeatureCodec, FeatureType, FrameCodec, PixelCodec
from envs.errors import UserError
from envs.stacking import FrameStacking
from rlcnn.accelerate.devices import PRECISIONS, Precision
from rlcnn.encoders.base import check_choice
from rlcnn.encoders.preprocessing import Preprocessing
from rlcnn.encoders.running_moments import RunningMoments
from rlcnn.sb3 import EncoderExtractor


class PixelNetwork(ImageInput):
    """An encoder with heads, which takes observations as they are stored."""

    features_extractor: BaseFeaturesExtractor
    precision: Precision = "fp32"  # of the encoder
    feature_dtype: FeatureType = "auto"  # of a frozen encoder's stored features
    takes_floats: bool = False  # whether it sees floats of 0 to 255 unrounded
    image_scale: float = 1.0  # as stable-baselines3 scales, for an extractor not of ours

    def storage_spec(self, stacking: FrameStacking) -> FrameCodec:
        """How frames are stored: as pixels, or as the features of a frozen encoder.

        A UserError refuses a ``stacking`` that does not produce this network's observations.
        """
        extractor = self.features_extractor
        if isinstance(extractor, EncoderExtractor) and extractor.frozen:
            device = next(extractor.parameters()).device
            kinds = (self.precision, self.feature_dtype)
            return FeatureCodec(extractor.encoder, stacking, device, *kinds)
        shape = extractor._observation_space.shape
        assert shape is not None
        return PixelCodec(stacking, shape)

    def extract_features(
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None
    ) -> torch.Tensor:
        """Features of observations, float32 (batch, features_dim).

        Only the encoder runs in the reduced precision: the heads' outputs (log probabilities, whose
        ratio PPO clips at a few percent, and Q values) stay in float32.

        Args:
            obs: images of 0 to 255, uint8 or float; or, for a frozen encoder, its stored features
                (:meth:`Encoder.features_of_stored`), as channels of one pixel.
            features_extractor: computes them; by default this network's own.
        """
        assert isinstance(obs, torch.Tensor)
        extractor = features_extractor or self.features_extractor
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if not isinstance(extractor, EncoderExtractor):
                # Contiguous, so that an extractor of the user's may call view() on them.
                features = extractor(obs.float().contiguous() * self.image_scale)
            elif obs.dtype == torch.uint8:
                features = extractor(obs)
            elif obs.shape[2:] == (1, 1):
                features = extractor.encoder.features_of_stored(obs.flatten(1).float())
            elif self.takes_floats:
                features = extractor.encoder(obs)
            else:
                features = extractor(obs.round().to(torch.uint8))
        return features.float()

    def _set_up_images(self) -> None:
        scales = self.normalize_images and is_image_space(self.observation_space)
        self.image_scale = 1 / 255 if scales else 1.0
        # Convolutions of uint8 images are fastest in this layout. Another's network may call view()
        # on the output of its convolutions, which this layout does not allow.
        if isinstance(self.features_extractor, EncoderExtractor | NatureCNN):
            self.features_extractor.to(memory_format=torch.channels_last)


def take_floats(network: nn.Module, wanted: bool) -> None:
    """Lets a policy or a network see floats of 0 to 255, as augmentation makes, unrounded."""
    for module in network.modules():
        if isinstance(module, PixelNetwork | Preprocessing):
            module.takes_floats = wanted


class PixelPolicy(ImageInput):
    """The options that the policies here add to stable-baselines3's, as keyword arguments."""

    precision: Precision = "fp32"
    """"bf16" runs the encoder in bfloat16; "tf32" lets a GPU round the inputs of float32
    convolutions and matrix products to TF32."""
    encoder_lr_factor: float = 1.0
    """The encoder's learning rate as a factor of the heads': 0.1 fine-tunes."""
    head_lr_factor: float = 1.0
    """Likewise that of the first layer behind the encoder's pretrained half."""
    unfreeze_at_step: int = 0
    """Environment step at which the encoder's pretrained half is unfrozen: the first update at this
    step or later is the first that changes it."""
    feature_dtype: FeatureType = "auto"
    """Of a frozen encoder's stored features: "fp32", "bf16", "fp16" or "auto", as precision."""

    def _take_options(self, base: type[BasePolicy], options: dict[str, Any]) -> dict[str, Any]:
        """Checks all options, keeps our own, and returns those of stable-baselines3's ``base``.

        Raises:
            UserError: an option is unknown or of the wrong kind.
        """
        check_policy_arguments(base, options)
        options = {"features_extractor_class": EncoderExtractor, **options}
        for name in POLICY_OPTIONS:
            setattr(self, name, options.pop(name, getattr(self, name)))
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("feature_dtype", self.feature_dtype, get_args(FeatureType))
        # Seeds of the first values of the encoder and of the heads, drawn from torch's global
        # generator. So heads of one shape start equal whatever the encoder, and draws after a
        # policy was made, such as actions, do not depend on how many numbers its encoder took.
        self._encoder_seed, self._heads_seed = torch.randint(2**62, (2,)).tolist()
        behind_encoder = issubclass(options["features_extractor_class"], EncoderExtractor)
        if options["net_arch"] is None and behind_encoder:
            options["net_arch"] = []
        return options

    def _get_constructor_parameters(self) -> dict[str, Any]:
        inherited = without_weights(super()._get_constructor_parameters())
        return {**inherited, **{name: getattr(self, name) for name in POLICY_OPTIONS}}


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator inside the block, and restores its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class PixelActorCriticPolicy(PixelPolicy, PixelNetwork, ActorCriticPolicy):
    """A policy head and a value head on one encoder, for PPO.

    Takes stable-baselines3's ``ActorCriticPolicy`` arguments and the attributes of
    :class:`PixelPolicy`; the ones that differ:

    Args:
        observation_space: uint8 images (channels, height, width).
        action_space: Discrete.
        lr_schedule: learning rate as a function of the progress remaining, from 1 to 0.
        net_arch: hidden layers of the heads; none by default behind an encoder, as behind
            NatureCNN in stable-baselines3, and its default behind another extractor.
        normalize_value: whether the value head predicts returns in deviations from their running
            mean, ``return_moments``; all methods return values in units of return.
        **options: ``features_extractor_class`` is :class:`EncoderExtractor`, whose ``encoder`` and
            options go into ``features_extractor_kwargs``; or any other, which takes floats of
            [0, 1], and of [0, 255] with ``normalize_images=False``, as in stable-baselines3.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        normalize_value: bool = False,
        **options: Any,
    ) -> None:
        chosen = self._take_options(ActorCriticPolicy, {"net_arch": net_arch, **options})
        if chosen.get("use_sde"):
            raise UserError("use_sde is not supported: it explores continuous actions")
        if not chosen.get("share_features_extractor", True):
            raise UserError("share_features_extractor=False is not supported: one encoder serves")
        if chosen.get("optimizer_kwargs") is None and "optimizer_class" not in chosen:
            # One kernel for all tensors, with stable-baselines3's epsilon.
            chosen["optimizer_kwargs"] = {"eps": 1e-5, "fused": True}
        with drawing_from(self._encoder_seed):
            super().__init__(observation_space, action_space, lr_schedule, **chosen)
        self.return_moments = RunningMoments() if normalize_value else None
        self._set_up_images()
        factors = self.encoder_lr_factor, self.head_lr_factor
        rebuild_optimizer(self, self, self.first_layers, *factors)
        freeze_until(self, self.unfreeze_at_step)

    def _build(self, lr_schedule: Schedule) -> None:
        # The encoder exists by now: only heads and the optimiser are made here.
        with drawing_from(self._heads_seed):
            super()._build(lr_schedule)

    def first_layers(self) -> list[nn.Module]:
        """The layers of both heads that take the encoder's features."""
        hidden = self.mlp_extractor
        if not isinstance(hidden, MlpExtractor):
            raise UserError("head_lr_factor is not supported for a policy with heads of its own")
        heads = (hidden.policy_net, self.action_net), (hidden.value_net, self.value_net)
        return [first_layer(*layers) for layers in heads]

    def logits_and_values(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both heads at once, for uint8 observations (batch, channels, height, width).

        Returns:
            Unnormalised log probabilities, float32 (batch, actions), and values, float32 (batch,).
        """
        features = self.extract_features(observations)
        latent_pi, latent_vf = self.mlp_extractor(features)
        values = self.value_net(latent_vf).squeeze(-1)
        if self.return_moments is not None:
            values = self.return_moments.restore(values)
        return self.action_net(latent_pi), values

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

    def evaluate_actions(  # type: ignore[override]
        self, obs: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values (batch, 1), log probabilities (batch,) and entropies (batch,), all float32."""
        logits, values = self.logits_and_values(obs)
        log_probs = logits.log_softmax(dim=1)
        entropy = -(log_probs.exp() * log_probs).sum(dim=1)
        return values[:, None], log_probs.gather(1, actions[:, None]).squeeze(1), entropy

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        return self(observation, deterministic=deterministic)[0]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        normalize_value = self.return_moments is not None
        return {**super()._get_constructor_parameters(), "normalize_value": normalize_value}

    def get_distribution(self, obs: Any) -> CategoricalDistribution:
        assert isinstance(self.action_dist, CategoricalDistribution)
        return self.action_dist.proba_distribution(self.logits_and_values(obs)[0])

    def predict_values(self, obs: Any) -> torch.Tensor:
        """Values, float32 (batch, 1)."""
        return self.logits_and_values(obs)[1][:, None]


class PixelQNetwork(PixelNetwork, QNetwork):
    """Q values float32 (batch, actions) of uint8 images (batch, channels, height, width).

    Takes stable-baselines3's ``QNetwork`` arguments and ``head``, the options of ``q_net``.
    """

    q_net: Head  # type: ignore[assignment]

    def __init__(self, *args: Any, head: HeadOptions | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        if head is None or head.plain:
            self.q_net = PlainHead(*self.q_net.children())
        else:
            self.q_net = make_head(self.features_dim, int(self.action_space.n), head)

    def forward(self, obs: PyTorchObs, generator: torch.Generator | None = None) -> torch.Tensor:
        """Q values; with a ``generator``, with noise or quantiles drawn from it."""
        return self.q_net.q_values(self.extract_features(obs), generator)


class PixelDQNPolicy(PixelPolicy, DQNPolicy):
    """An online and a target Q network, each with an encoder of its own, for DQN.

    Takes stable-baselines3's ``DQNPolicy`` arguments and the attributes of :class:`PixelPolicy`;
    those of :class:`PixelActorCriticPolicy` that differ from stable-baselines3's differ here, too.
    ``head`` has the options of the networks' heads; ``net_arch`` is for the plain one.
    """

    q_net: PixelQNetwork
    q_net_target: PixelQNetwork

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        head: HeadOptions | None = None,
        **options: Any,
    ) -> None:
        self.head = head or HeadOptions()
        if net_arch and not self.head.plain:
            raise UserError(
                f"net_arch {net_arch} is for head q without noise: expected head_units instead"
            )
        chosen = self._take_options(DQNPolicy, {"net_arch": net_arch, **options})
        if chosen.get("optimizer_kwargs") is None and "optimizer_class" not in chosen:
            chosen["optimizer_kwargs"] = {"fused": True}
        super().__init__(observation_space, action_space, lr_schedule, **chosen)
        factors = self.encoder_lr_factor, self.head_lr_factor
        rebuild_optimizer(self, self.q_net, self.q_net.q_net.first_layers, *factors)
        freeze_until(self.q_net, self.unfreeze_at_step)

    def make_q_net(self) -> PixelQNetwork:
        """A Q network with an encoder of its own, on this policy's device."""
        with drawing_from(self._encoder_seed):
            net_args = self._update_features_extractor(self.net_args, features_extractor=None)
        with drawing_from(self._heads_seed):
            network = PixelQNetwork(**net_args, head=self.head)
        network.precision, network.feature_dtype = self.precision, self.feature_dtype
        network._set_up_images()
        return network.to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "head": self.head}
