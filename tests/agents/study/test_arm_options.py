"""Arms that carry options of training."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.study_files import tiny_plan
from support.tiny_agents import TINY

from agents.config import TrainConfig
from agents.presets import preset_config
from agents.study.arm_options import explicit_defaults
from agents.study.arms import parse_arm
from agents.study.plan import StudyPlan, deviations, differences
from envs.errors import UserError

BASE = preset_config("fast", "ppo")


def configured(text: str, base: TrainConfig = BASE) -> TrainConfig:
    return parse_arm(text).configure(base)


def test_a_preset_takes_its_own_defaults_but_the_studys_shared_options() -> None:
    base = replace(BASE, total_steps=1234, protocol="classic", obs_size=64, track="disabled")
    config = configured("scratch::preset=iqn,encoder=impala", base)
    iqn = preset_config("iqn")
    assert (config.algo, config.preset, config.num_envs) == ("dqn", "iqn", iqn.num_envs)
    assert config.dqn == iqn.dqn
    assert config.encoder == "impala"
    shared = ("total_steps", "protocol", "obs_size", "track", "eval_episodes")
    assert [getattr(config, name) for name in shared] == [getattr(base, name) for name in shared]


def test_options_given_to_the_study_count_over_an_arms_preset_and_under_its_own_options() -> None:
    dqn = replace(BASE.dqn, learning_starts=77, buffer_size=5_000)
    base = replace(BASE, dqn=dqn, num_envs=4)
    config = configured("scratch::preset=iqn,dqn.buffer-size=9e3,dqn.iqn_samples=8", base)
    expected = replace(
        preset_config("iqn").dqn, learning_starts=77, buffer_size=9_000, iqn_samples=8
    )
    assert config.dqn == expected
    assert config.num_envs == 4


def test_an_option_given_to_the_study_counts_even_if_it_equals_its_presets_default() -> None:
    iqn = preset_config("iqn")
    arm = parse_arm("scratch::preset=iqn")
    assert iqn.num_envs != BASE.num_envs
    assert iqn.dqn.target_update_interval != BASE.dqn.target_update_interval
    given = {"num_envs", "dqn.target_update_interval", "ppo.gamma", "seed"}
    explicit = explicit_defaults(BASE, given)
    assert set(explicit) == {"num_envs", "dqn.target_update_interval", "ppo.gamma"}
    config = arm.configure(BASE, explicit)
    assert config.num_envs == BASE.num_envs
    assert config.dqn == replace(iqn.dqn, target_update_interval=BASE.dqn.target_update_interval)
    # What differs from the default counts anyway.
    assert explicit_defaults(replace(BASE, num_envs=5), {"num_envs"}) == ()
    plan = replace(tiny_plan("scratch", "scratch::preset=iqn"), explicit=explicit)
    assert StudyPlan.from_json(json.loads(json.dumps(plan.to_json()))).explicit == explicit
    found = differences(replace(plan, explicit=()).to_json(), plan.to_json())
    assert "--num-envs given here" in found
    assert "--num-envs given there, not here" in differences(
        plan.to_json(), replace(plan, explicit=()).to_json()
    )


def test_an_algorithm_alone_keeps_the_preset_where_it_has_one() -> None:
    assert configured("scratch::algo=dqn") == preset_config("fast", "dqn")
    assert configured("scratch::preset=btr").encoder_options["width"] == 2


@pytest.mark.parametrize(
    ("study", "encoder", "options"),
    [
        ({}, "impala", preset_config("btr").encoder_options),
        ({"encoder": "lenet"}, "lenet", {}),
        ({"encoder_options": {"features_dim": 9}}, "impala", preset_config("btr").encoder_options),
        (
            {"encoder": "impala", "encoder_options": {"width": 1}},
            "impala",
            {**preset_config("btr").encoder_options, "width": 1},
        ),
    ],
)
def test_options_of_an_encoder_come_only_from_a_preset_and_a_study_with_this_encoder(
    study: dict[str, Any], encoder: str, options: dict[str, Any]
) -> None:
    config = configured("scratch::preset=btr", replace(BASE, **study))
    assert (config.encoder, config.encoder_options) == (encoder, options)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("finetune:imagenet::unfreeze_from=layer2,finetune_factor=0.01", "finetune_factor", 0.01),
        ("finetune:imagenet::unfreeze_from=layer2,finetune_factor=0.01", "unfreeze_from", "layer2"),
        ("finetune:imagenet::finetune_factor=0.01,head_factor=0.3", "head_factor", 0.3),
        ("frozen-random::obs-size=64", "obs_size", 64),
        ("scratch:impala,width=2::num_envs=16", "num_envs", 16),
    ],
)
def test_options_without_a_preset(text: str, name: str, value: object) -> None:
    assert getattr(configured(text), name) == value


def test_an_arm_is_read_back_from_its_text() -> None:
    for text in ("scratch::preset=iqn,dqn.n_steps=1", "scratch:impala,width=2::num_envs=16"):
        arm = parse_arm(text)
        assert (arm.text, parse_arm(arm.text)) == (text, arm)
    assert parse_arm("scratch::encoder=impala") == parse_arm("scratch:impala")
    plan = tiny_plan("scratch", "scratch::algo=pqn,pqn.n_steps=8,pqn.batch_size=8")
    again = StudyPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert differences(plan.to_json(), again.to_json()) == []
    plan.validate()
    plan.check_builds(plan.runs)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("scratch::", '"" is no option: expected OPTION=VALUE'),
        ("scratch::preset", '"preset" is no option'),
        ("scratch::preset=iqn::num_envs=2", 'has "::" twice: expected one, with commas between'),
        ("::preset=iqn", '"::preset=iqn" names no kind before "::": expected scratch[:NET]'),
        ("scratch::preset=iqn,preset=btr", 'option "preset" twice'),
        ("scratch::total_steps=5", "total_steps must be equal for all arms: give --total-steps"),
        ("scratch::protocol=sticky", "protocol must be equal for all arms"),
        ("scratch::mode=frozen", "mode is no option of an arm: scratch, frozen and finetune say"),
        ("scratch::weights=imagenet", "weights is no option of an arm: they are written in the"),
        ("scratch::num-env=5", 'option "num_env" is unknown. Did you mean "num_envs"?'),
        ("scratch::dqn.n_step=3", 'option "dqn.n_step" is unknown. Did you mean "dqn.n_steps"?'),
        ("scratch:impala::encoder=nature", "names two encoders: impala and nature"),
        ("scratch::encoder=impalla", 'encoder "impalla" is unknown'),
    ],
)
def test_what_is_no_option_of_an_arm_is_refused(text: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_arm(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("scratch::preset=iqn,algo=ppo", "--preset iqn is for --algo dqn"),
        ("scratch::preset=iqm", '"iqm" is unknown'),
        ("scratch::dqn.head=iqn", "dqn.head has no effect: this arm learns by ppo, not dqn"),
        ("scratch::preset=iqn,ppo.gamma=.9", "ppo.gamma has no effect: this arm learns by dqn"),
        ("scratch::finetune_factor=.5", "finetune_factor has no effect: it is for finetune"),
        ("scratch::head_factor=.5", "--head-factor 0.5 is for --mode finetune: --mode train"),
        ("scratch::ppo.gamma=2", '--arms "scratch::ppo.gamma=2": --ppo.gamma 2.0 must be'),
        ("scratch::algo=dqn,dqn.double=2", 'dqn.double "2" is unknown: expected true or false'),
        ("scratch::num_envs=many", '--arms "scratch::num_envs=many": --num-envs "many"'),
    ],
)
def test_values_that_are_not_valid_are_refused(text: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny_plan("scratch", text).validate()
    assert problem in str(caught.value)


def test_equal_trainings_are_refused_however_they_are_written() -> None:
    with pytest.raises(UserError, match="are the same training"):
        tiny_plan("scratch", f"scratch::num_envs={TINY.num_envs}").validate()


@pytest.mark.parametrize("value", [True, False])
def test_a_switch_of_an_arm_is_true_or_false(value: bool) -> None:
    assert configured(f"scratch::algo=dqn,dqn.double={str(value).lower()}").dqn.double is value


def test_a_path_may_contain_the_separator_of_options() -> None:
    arm = parse_arm("frozen:/a::b/c.pt::obs_size=64")
    assert (arm.weights, arm.options) == ("/a::b/c.pt", {"obs_size": "64"})
    assert parse_arm("frozen:/a::b/c.pt").weights == "/a::b/c.pt"


def test_a_plan_on_disk_keeps_default_batch_sizes_of_arms_with_other_environments() -> None:
    plan = tiny_plan("scratch", "scratch::num_envs=1", base=BASE)
    again = StudyPlan.from_json(json.loads(json.dumps(plan.to_json())))
    for planned, read in zip(plan.runs, again.runs, strict=True):
        assert deviations(read.config, planned.config.resolve().to_json()) == []


def test_a_plan_names_the_algorithms_of_its_arms() -> None:
    assert tiny_plan("scratch", "scratch::preset=iqn", base=BASE).algorithms == ["ppo", "dqn"]
