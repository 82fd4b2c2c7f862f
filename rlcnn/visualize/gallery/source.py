"""What pictures are made from: an encoder with its weights, and labelled images at its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device
from rlcnn.data.atari.options import LoadPolicies
from rlcnn.data.by_name import load_data
from rlcnn.data.crops import CropTransform
from rlcnn.data.decoding import read_image
from rlcnn.data.images import UNKNOWN, LabelledImages, Split, Task
from rlcnn.data.label_file import load_labelled_files
from rlcnn.data.names import ATARI, FOLDER
from rlcnn.encoders import Encoder, list_encoders, with_frame_channels
from rlcnn.encoders.architectures import Architecture, find_architecture
from rlcnn.encoders.backbones import split_name
from rlcnn.encoders.base import size_option
from rlcnn.supervised.evaluation.assessment import chosen_task
from rlcnn.supervised.evaluation.networks import Network, load_network
from rlcnn.supervised.evaluation.probe import ChosenImages, build_encoder, random_like
from rlcnn.visualize.gallery.options import PictureConfig
from rlcnn.visualize.saliency import Scores
from rlcnn.weights.load import read_about, read_spec, weights_file

_TRAIN, _TEST = 2_000, 500


@dataclass(frozen=True)
class PlayedGame:
    """The steps of a game, or its first ones: what an agent saw, chose and got.

    Attributes:
        observations: uint8 (steps, channels, height, width).
        actions: int64 (steps,).
        rewards: float32 (steps,), unclipped.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor


@dataclass(frozen=True)
class Explained:
    """A network whose scores are explained.

    Attributes:
        scores: images -> scores; log probabilities, Q values or logits.
        encoder: the encoder behind them.
        outputs: names of the scores, such as classes.
        kind: what a score is.
        frame_channels: channels of a frame.
        observe: an image of the data -> what the network takes, uint8 (1, channels, h, w).
        play: plays a game from a seed; None for a classifier.
    """

    scores: Scores
    encoder: Encoder
    outputs: Sequence[str]
    kind: str
    frame_channels: int
    observe: Callable[[torch.Tensor], torch.Tensor] = lambda image: image[None]
    play: Callable[[int], PlayedGame] | None = None


@dataclass
class Source:
    """The network and the images of a configuration, loaded when a picture first needs them."""

    config: PictureConfig
    load_policies: LoadPolicies
    own_images: Callable[[], Split] | None = None
    """Loads the images where the configuration names none."""
    explain: Callable[[], AbstractContextManager[Explained]] | None = None
    """Loads the network to explain, an agent's; None for a classifier."""
    notes: list[str] = field(default_factory=list)

    @cached_property
    def device(self) -> str:
        """Where the network computes."""
        return resolve_device(self.config.device)

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What the weights file says of its training; empty for other weights."""
        weights = self.config.weights
        return {} if weights in ("none", "imagenet") else read_about(weights_file(Path(weights)))

    @cached_property
    def encoder_name(self) -> str:
        """The configured encoder, or the one that the weights name."""
        spec = self._spec
        if self.config.encoder is not None:
            return self.config.encoder
        if spec is None:
            raise UserError(
                f'--weights "{self.config.weights}" does not name its encoder: give --encoder NAME'
            )
        return str(spec["name"])

    @cached_property
    def _spec(self) -> Any:
        weights = self.config.weights
        return None if weights in ("none", "imagenet") else read_spec(weights)

    @cached_property
    def _architecture(self) -> Architecture | None:
        name = split_name(self.encoder_name)[0]
        return None if name in list_encoders() else find_architecture(name)

    @property
    def data(self) -> str | None:
        """The name of the images: the configured ones, or those that the weights learned from."""
        return self.config.data or self._about.get("data")

    @cached_property
    def loaded(self) -> Split:
        """All images, at their own size.

        Raises:
            UserError: no images are named, or as :func:`rlcnn.data.by_name.load_data`.
        """
        config, data = self.config, self.data
        if data is None and self.own_images is not None:
            return self.own_images()
        if data is None:
            raise UserError(f"these pictures need images: give --data {FOLDER}DIR")
        channels = config.channels or (3 if self._architecture else None)
        if config.labels is not None:
            architecture = self._architecture
            if architecture is None:
                raise UserError("--labels has classes of ImageNet: expected a network of it")
            task, folder = Task("class", architecture.classes), Path(data.removeprefix(FOLDER))
            files = load_labelled_files(config.labels, folder, task, channels=channels or 3)
            return Split(files, files)
        return load_data(
            data,
            config.data_dir or Path(self._about.get("data_dir", "data")),
            seed=config.seed,
            channels=channels,
            frames=config.frames,
            policies=self.load_policies(config.players, config.frames, config.seed),
        )

    @cached_property
    def task(self) -> Task:
        """The labels to compare by; a UserError if there are several and none is named."""
        return chosen_task(self.loaded.train, self.config.task)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder with its weights, in evaluation mode, on the CPU."""
        options = with_frame_channels(
            self.encoder_name, self.config.encoder_options, self._frame_channels
        )
        with size_option("--size"):
            encoder, report = build_encoder(
                self.encoder_name, self.observation_shape, options, self.config.weights
            )
        self.notes.append("untrained" if report is None else str(report))
        return encoder.eval().requires_grad_(False)

    @property
    def _frame_channels(self) -> int | None:
        """Channels of one frame; None where a network's own default is right."""
        if (self.data or "").startswith(ATARI):
            return self.config.frames.frame_channels
        return None

    @property
    def frame_channels(self) -> int:
        """Channels of one frame: 3 for RGB."""
        known = self.encoder.options.get("frame_channels") or self._frame_channels
        return known or (3 if self.encoder.observation_shape[0] == 3 else 1)

    @cached_property
    def observation_shape(self) -> tuple[int, int, int]:
        """(channels, height, width): of the weights' own images, the network's, or the data's."""
        spec, size = self._spec, self.config.size
        shape: Any = tuple(spec["observation_shape"]) if spec else None
        data, frames = self.data, self.config.frames
        if (data or "").startswith(ATARI) or not (shape or data or self._architecture):
            # Known without games being played.
            channels, side = frames.frame_stack * frames.frame_channels, frames.obs_size
            shape = (channels, *(shape or (0, side, side))[1:])
        elif shape is None and data is not None:
            images = self.loaded.train
            shape = images.image_shape
            if self._architecture:
                shape = (images.channels, *[self._architecture.crop] * 2)
            if shape is None and size is None:
                raise UserError("the images differ in size: --size N resizes them to N x N pixels")
            shape = shape or (images.channels, 0, 0)
        elif shape is None and self._architecture:
            shape = (3, *[self._architecture.crop] * 2)
        if size is not None:
            shape = (shape[0], size, size)
        return shape

    @cached_property
    def crop(self) -> CropTransform:
        """How images of other sizes become images of the encoder's size."""
        _, height, width = self.encoder.observation_shape
        if self._architecture is None:
            return CropTransform(height, width)
        return CropTransform(height, width, interpolation=self._architecture.interpolation)

    def untrained(self) -> Encoder:
        """The same network, newly initialised."""
        return random_like(self.encoder, self.config.seed).eval().requires_grad_(False)

    def images(self, part: str, task: Task | None = None) -> LabelledImages:
        """Images of a part, "train" or "test", at the encoder's size, drawn by the seed.

        With ``task`` only those whose class is known.

        Raises:
            UserError: there are fewer than asked, or their channels are not the encoder's.
        """
        images: LabelledImages = getattr(self.loaded, part)
        channels = self.encoder.observation_shape[0]
        if images.channels != channels:
            raise UserError(
                f'the images have {images.channels} channels, but encoder "{self.encoder.name}"'
                f" takes {channels}"
                + (f": give --channels {channels}" if channels in (1, 3) else "")
            )
        asked = {"train": self.config.train_images, "test": self.config.test_images}[part]
        known = np.arange(len(images))
        if task is not None:
            known = np.flatnonzero(images.labels[:, images.tasks.index(task)] != UNKNOWN)
        if asked is not None and asked > len(known):
            raise UserError(
                f"--{part}-images {asked} must be at most {len(known)}, the number of {part} images"
            )
        if not len(known):
            raise UserError(f'no {part} image has a known label for "{task.name if task else ""}"')
        count = min(asked or {"train": _TRAIN, "test": _TEST}[part], len(known))
        drawn = np.sort(np.random.default_rng(self.config.seed).permutation(known)[:count])
        # Games of several have labels of their own, which may be all unknown here.
        return ChosenImages(images, torch.from_numpy(drawn), task or images.tasks[0], self.crop)

    def picture(self, given: str | None, default: int, option: str) -> tuple[torch.Tensor, str]:
        """An image by the path of its file or its number among the held-out images; its name.

        The image is uint8 (channels, height, width) at the encoder's size. ``default`` is the place
        of the image among the drawn ones.

        Raises:
            UserError: it is neither a file nor a number of an image.
        """
        if given is not None and not given.isdecimal():
            if not Path(given).is_file():
                raise UserError(
                    f'{option} "{given}" is neither a file nor the number of a held-out image'
                )
            channels, *_ = self.encoder.observation_shape
            if channels not in (1, 3):
                raise UserError(
                    f'{option} "{given}" is one image, but encoder "{self.encoder.name}" takes'
                    f" stacks of {channels} channels: give the number of a held-out image"
                )
            return self.crop.centre(read_image(Path(given), channels))[0], Path(given).name
        if given is None:
            images = self.images("test")
            place = default % len(images)
            return images[place], images.name(place)
        images = self.loaded.test
        if int(given) >= len(images):
            raise UserError(
                f"{option} {given} must be below {len(images)}, the number of held-out images"
            )
        task = images.tasks[0]
        one = ChosenImages(images, torch.tensor([int(given)]), task, self.crop)
        # Numbers do not say which of several games it is.
        game = f" ({task.classes[int(one.labels[0, 0])]})" if task.name == "game" else ""
        return one[0], f"{one.name(0)}{game}"

    def query_places(self, images: LabelledImages) -> list[int]:
        """The places of ``--queries`` images, spread evenly.

        Raises:
            UserError: there are fewer images.
        """
        count = self.config.queries
        if count > len(images):
            raise UserError(
                f"--queries {count} must be at most {len(images)}, the number of held-out images"
            )
        return [round(i * (len(images) - 1) / max(1, count - 1)) for i in range(count)]

    def classifier(self) -> Network:
        """The network with its head; errors are those of :func:`load_network`."""
        config = self.config
        weights = config.weights
        if weights == "none":
            raise UserError("--weights none has no classifier: give trained weights")
        name = None if config.encoder is None else split_name(config.encoder)[0]
        return load_network(weights, name, size=config.size, device=self.device)

    def facts(self) -> dict[str, Any]:
        """The network and the images in a few lines."""
        facts: dict[str, Any] = {}
        if "encoder" in self.__dict__:
            shape = "x".join(map(str, self.encoder.observation_shape))
            facts["encoder"] = f"{self.encoder.name}, input {shape} (channels x height x width)"
            facts["weights"] = f"{self.config.weights}: {'; '.join(self.notes)}"
        if "loaded" in self.__dict__:
            facts["images"] = (
                f"{self.data or 'own play'}: {len(self.loaded.train):,} training,"
                f" {len(self.loaded.test):,} held-out images"
            )
        return facts
