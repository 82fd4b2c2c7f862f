"""Which options of transfer go together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents.config import TrainConfig
from agents.networks.transfer_options import notes_on_transfer
from envs.errors import UserError

PLAIN = TrainConfig(total_steps=1_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "finetune", "unfreeze_from": "trunk.conv2"},
        {"mode": "finetune", "unfreeze_at_step": 999},
        {"mode": "finetune", "unfreeze_at_step": 500, "unfreeze_from": "trunk.conv2"},
        {"mode": "finetune", "head_factor": 0.3, "finetune_factor": 0.01},
        {"mode": "frozen", "feature_dtype": "fp16"},
        {"mode": "frozen", "weights": "none"},
    ],
    ids=str,
)
def test_what_goes_together_is_taken(changes: dict[str, Any]) -> None:
    replace(PLAIN, **changes).validate()


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"unfreeze_from": "a"},
            "--unfreeze-from a is for --mode finetune: --mode train learns all",
        ),
        (
            {"unfreeze_at_step": 5, "mode": "frozen"},
            "--unfreeze-at-step 5 is for --mode finetune: --mode frozen learns nothing",
        ),
        (
            {"unfreeze_at_step": 1_000, "mode": "finetune"},
            "--unfreeze-at-step 1000 is not reached before the end at --total-steps 1000",
        ),
        ({"unfreeze_at_step": -1, "mode": "finetune"}, "--unfreeze-at-step -1 must be at least 0"),
        ({"feature_dtype": "bf16"}, "--feature-dtype bf16 is for the features that --mode frozen"),
        ({"feature_dtype": "fp8", "mode": "frozen"}, '--feature-dtype "fp8" is unknown'),
        ({"head_factor": 0.3}, "--head-factor 0.3 is for --mode finetune: --mode train learns all"),
        ({"head_factor": -1.0, "mode": "finetune"}, "--head-factor -1.0 must be more than 0"),
        ({"finetune_factor": 0.0}, "--finetune-factor 0.0 must be more than 0"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        replace(PLAIN, **changes).validate()
    assert "\n" not in str(error.value)


def test_auto_is_what_the_encoder_computes_in() -> None:
    for precision in ("fp32", "bf16"):
        config = replace(PLAIN, mode="frozen", precision=precision, device="cpu").resolve()
        assert config.feature_dtype == precision
        # What is written down must be valid when it is read again.
        replace(PLAIN, precision=precision, device="cpu").resolve().validate()


def test_what_may_not_be_meant_is_told() -> None:
    assert notes_on_transfer(PLAIN) == []
    (random,) = notes_on_transfer(replace(PLAIN, mode="frozen"))
    assert random.startswith("the frozen encoder has random weights")
    assert notes_on_transfer(replace(PLAIN, mode="frozen", weights="imagenet")) == []
    later = replace(PLAIN, mode="finetune", weights="imagenet", unfreeze_at_step=500)
    (held,) = notes_on_transfer(later)
    assert held.startswith("the encoder is frozen until step 500")
