"""Which environment is made, and how, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EnvConfig:
    """An environment of Gymnasium's registry, what is wrapped around it, and where it steps.

    Attributes:
        env_id: an Atari game, ``ALE/<Game>-v5``, or any other registered id; ``module:Id-v0``
            imports the module first.
        kwargs: keyword arguments of ``gymnasium.make``; for Atari games ``mode`` and
            ``difficulty``.
        wrappers: wrappers as ``module:Wrapper``, applied in this order to each environment. Around
            an Atari game they see agent steps: frames are skipped, pooled and resized before.
        obs_key: key of the image, if observations are a ``Dict``; empty takes the only image.
        workers: processes that step the environments; 0 steps them in this process. Atari games
            without kwargs and wrappers use C++ threads instead.
    """

    env_id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    obs_key: str = ""
    workers: int = 0

    @classmethod
    def of(cls, env: str | EnvConfig) -> EnvConfig:
        """The configuration; a string is the id of an environment without more."""
        return cls(env) if isinstance(env, str) else env

    @property
    def is_changed(self) -> bool:
        """Whether arguments, wrappers or a key change what the id alone would make."""
        return bool(self.kwargs or self.wrappers or self.obs_key)
