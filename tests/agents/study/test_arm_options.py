"""Arms that carry options of training."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.study_files import tiny_plan
from support.tiny_agents import TINY

from agents.config import TrainConfig
from agents.presets import preset_config
from agents.study.arms import parse_arm
from agents.study.plan import StudyPlan, differences
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


def test_an_algorithm_alone_keeps_the_preset_where_it_has_one() -> None:
    assert configured("scratch::algo=dqn") == preset_config("fast", "dqn")
    assert configured("scratch::preset=btr").encoder_options["width"] == 2


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("finetune:imagenet::unfreeze_from=layer2,finetune_factor=0.01", "finetune_factor", 0.01),
        ("finetune:imagenet::unfreeze_from=layer2,finetune_factor=0.01", "unfreeze_from", "layer2"),
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
        ("scratch::preset=iqn,preset=btr", 'option "preset" twice'),
        ("scratch::total_steps=5", "total_steps must be equal for all arms: give --total-steps"),
        ("scratch::protocol=sticky", "protocol must be equal for all arms"),
        ("scratch::mode=frozen", "mode must be equal for all arms"),
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
