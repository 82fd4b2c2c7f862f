"""What a Q network computes behind its encoder, as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from envs.errors import UserError
from rlcnn.config.fields import Count, NonNegative

HeadName = Literal["q", "dueling", "c51", "qr", "iqn", "dueling-c51", "dueling-qr", "dueling-iqn"]
Kind = Literal["q", "c51", "qr", "iqn"]

_MAX_SAMPLES = 4096


@dataclass(frozen=True)
class HeadOptions:
    """Options of a head; sources are in docs/value-based.md."""

    head: HeadName = "q"
    """What the network estimates of returns: their means (q), or their distributions by fixed atoms
    (c51), fixed quantiles (qr) or drawn quantiles (iqn). dueling adds streams for the state's value
    and the actions' advantages. Actions are chosen by the mean."""
    head_units: Annotated[int | None, Interval(ge=0, le=65_536)] = None
    """Units of the hidden layer of each stream; 0 leaves it out. None, the default, takes 512 for
    dueling heads and iqn, and 0 for others. Before a hidden layer nature and impala leave out their
    own linear layer, unless --encoder-options features_dim says otherwise."""
    atoms: Annotated[int, Interval(ge=2, le=_MAX_SAMPLES)] = 51
    """Atoms of a c51 head (Bellemare et al. 2017)."""
    v_min: float = -10.0
    """Lowest atom of a c51 head (Bellemare et al. 2017)."""
    v_max: float = 10.0
    """Highest atom of a c51 head (Bellemare et al. 2017)."""
    quantiles: Annotated[int, Interval(ge=1, le=_MAX_SAMPLES)] = 200
    """Quantiles of a qr head (Dabney et al. 2018a)."""
    iqn_samples: Annotated[int, Interval(ge=1, le=_MAX_SAMPLES)] = 64
    """Quantiles that iqn predicts for each transition: N in Dabney et al. 2018b; 8 in BTR."""
    iqn_target_samples: Annotated[int, Interval(ge=1, le=_MAX_SAMPLES)] = 64
    """Quantiles of iqn's targets: N' in Dabney et al. 2018b; 8 in BTR."""
    iqn_acting_samples: Annotated[int, Interval(ge=1, le=_MAX_SAMPLES)] = 32
    """Quantiles that iqn averages to choose an action: K in Dabney et al. 2018b; 8 in BTR."""
    cosines: Count = 64
    """Cosines in the embedding of a quantile by iqn (Dabney et al. 2018b)."""
    first_cosine: Annotated[int, Interval(ge=0, le=1)] = 1
    """Least i in these cosines, cos(pi i tau): 1 in dqn_zoo, 0 in Dabney et al. 2018b and BTR."""
    noisy: bool = False
    """Whether the head's linear layers get learned, factorised noise in training (Fortunato et al.
    2018); one draw of noise serves a whole batch. Usually with an epsilon of 0."""
    sigma0: NonNegative = 0.5
    """Initial scale of the noise of --dqn.noisy (Fortunato et al. 2018); 0.1 in dqn_zoo."""

    @property
    def kind(self) -> Kind:
        """The name without dueling."""
        kind = self.head.removeprefix("dueling-")
        return "q" if kind == "dueling" else kind  # type: ignore[return-value]

    @property
    def dueling(self) -> bool:
        return self.head.startswith("dueling")

    @property
    def hidden_units(self) -> int:
        """Units of the hidden layers; 0 for none."""
        if self.head_units is None:
            return 512 if self.dueling or self.kind == "iqn" else 0
        return self.head_units

    @property
    def plain(self) -> bool:
        """Whether the head is stable-baselines3's own."""
        return self.head == "q" and not self.hidden_units and not self.noisy

    @property
    def random(self) -> bool:
        """Whether it draws numbers in training."""
        return self.noisy or self.kind == "iqn"

    def check_together(self) -> None:
        """Refuses options that contradict each other, by a UserError."""
        if self.v_min >= self.v_max:
            raise UserError(f"v_min {self.v_min:g} must be below v_max {self.v_max:g}")
        spacing = (self.v_max - self.v_min) / (self.atoms - 1)
        if spacing < 1e-5 * max(abs(self.v_min), abs(self.v_max)):
            raise UserError(
                f"v_min {self.v_min} and v_max {self.v_max} are too close for {self.atoms} atoms:"
                " float32 does not tell them apart"
            )
