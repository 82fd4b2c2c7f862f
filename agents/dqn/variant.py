"""What makes one variant of DQN another, as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_type_hints

from annotated_types import Interval

from agents.dqn.replay_options import ReplayOptions
from agents.networks.head_options import HeadOptions
from envs.errors import UserError, nearest
from rlcnn.config.fields import Fraction, NonNegative, Period, check_value, option_name

ADAM_EPS = 1e-8  # torch's default


@dataclass(frozen=True)
class DQNVariant(HeadOptions, ReplayOptions):
    """The head, objective, sampler and exploration; defaults are DQN's of Mnih et al. 2015."""

    double: bool = False
    """Whether the online network chooses the next action and the target network gives its value
    (van Hasselt et al. 2016)."""
    loss: Literal["huber", "mse"] = "huber"
    """Loss of a temporal-difference error, for heads of Q values: huber (Mnih et al. 2015) or mse,
    the squared error (Dopamine)."""
    munchausen: bool = False
    """Whether the scaled log-policy is added to rewards and soft values are learned (Vieillard et
    al. 2020); for heads of Q values and of quantiles."""
    munchausen_alpha: Fraction = 0.9
    """Scale of the log-policy in the reward (Vieillard et al. 2020)."""
    munchausen_tau: Annotated[float, Interval(gt=0)] = 0.03
    """Temperature of the softmax policy (Vieillard et al. 2020)."""
    munchausen_clip: Annotated[float, Interval(le=0)] = -1.0
    """Lowest value of tau log-policy before it is scaled: l0 in Vieillard et al. 2020."""
    adam_eps: Annotated[float, Interval(gt=0)] = ADAM_EPS
    """Adam's epsilon; 1.5e-4 in Dopamine's DQN."""
    exploration_steps: Period = 0
    """Steps over which epsilon falls, whatever the length of the run; 0 takes
    --dqn.exploration-fraction."""
    exploration_end: Fraction = 1.0
    """Share of the run after which epsilon is 0; 0.5 in BTR. With 1 it never is."""
    exploration_spread: NonNegative = 0.0
    """Spread of epsilon over environments: i of N explores with epsilon^(1 + i / (N - 1) * spread);
    7 in Ape-X (Horgan et al. 2018), 0 makes all explore alike."""

    @property
    def draws(self) -> bool:
        """Whether acting or learning draws random numbers, beside exploration and sampling."""
        return self.random or self.augments

    def encoder_options(self, encoder: str, weights: object) -> dict[str, Any]:
        """An encoder's options where the user gives none.

        Before hidden layers of the head an encoder leaves out its own last, linear layer, if it
        can, as in the published networks. With pretrained ``weights`` it keeps the layer.
        """
        # Here, not above: it imports torch, and --help does without.
        from rlcnn.encoders.registry import encoder_options, has_optional_projection

        if not self.hidden_units or not has_optional_projection(encoder):
            return {}
        default = encoder_options(encoder)["features_dim"]
        return {"features_dim": 0 if weights in (None, "none") else default}

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """The variant of an agent's keyword arguments.

        A UserError refuses unknown names, values out of range and contradictions.
        """
        hints = get_type_hints(cls, include_extras=True)
        for name, value in arguments.items():
            if name not in hints:
                raise UserError(f'DQN has no argument "{name}".{nearest(name, hints)}'.rstrip("."))
            if not _is_like(value, default := getattr(cls, name)):
                raise UserError(f"{name} must be like {default!r}, not {value!r}")
            try:
                check_value(name, value, hints[name])
            except UserError as error:
                # As an argument, not as an option of a script.
                raise UserError(str(error).replace(option_name(name), name, 1)) from None
        variant = cls(**arguments)
        variant.check_together()
        return variant

    def check_together(self) -> None:
        super().check_together()
        if self.loss != "huber" and self.kind != "q":
            raise UserError(
                f"loss {self.loss} is for heads of Q values: head {self.head} has a loss of its"
                " own; expected huber"
            )
        if self.munchausen and self.kind == "c51":
            raise UserError(
                f"munchausen is not defined for head {self.head}: expected q, qr or iqn, or one of"
                " them with dueling"
            )
        if self.munchausen and self.double:
            raise UserError(
                "munchausen has no greedy action for double to choose: leave one of them out"
            )


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value has the type of a default; None is that of a number."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if default is None:
        return value is None or isinstance(value, int)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
