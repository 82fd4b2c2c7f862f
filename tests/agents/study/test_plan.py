"""A study as data: its runs, and refused plans."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.study_files import TINY

from agents.config import TrainConfig
from agents.presets import preset_config
from agents.study.arms import parse_arm
from agents.study.plan import (
    StudyPlan,
    deviations,
    differences,
    parse_games,
    with_interim_evaluations,
)
from agents.study.runner import default_study_dir
from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.weights.load import save_encoder

GAMES = ("support.games:Signals-v0", "ALE/Pong-v5")


def plan(*arms: str, **changes: Any) -> StudyPlan:
    given: dict[str, Any] = {
        "games": GAMES,
        "arms": tuple(parse_arm(text) for text in arms or ("scratch", "frozen-random")),
        "seeds": (3, 4, 5),
        "base": TINY,
        **changes,
    }
    return StudyPlan(**given)


def test_every_arm_plays_every_game_once_with_every_seed() -> None:
    runs = plan().runs
    assert len({(run.game, run.arm, run.seed) for run in runs}) == len(runs) == 2 * 2 * 3
    assert len({run.directory for run in runs}) == len(runs)
    assert [run.config.seed for run in runs] == [run.seed for run in runs]
    # Whenever the study is stopped, the finished runs compare all arms.
    assert [run.arm for run in runs[:2]] == ["scratch", "frozen-random"]
    assert [run.seed for run in runs[:4]] == [3] * 4


def test_arms_differ_only_in_what_they_name() -> None:
    scratch, frozen = plan().runs[:2]
    assert replace(frozen.config, mode=scratch.config.mode) == scratch.config


def test_arms_of_one_name_get_as_many_parts_of_their_paths_as_needed() -> None:
    found = plan("scratch", "frozen:/z/a/best.pt", "frozen:/z/b/best.pt", "frozen:/y/b/best.pt")
    assert found.arm_names == ["scratch", "frozen:a/best", "frozen:z/b/best", "frozen:y/b/best"]
    assert len({run.directory for run in found.runs}) == len(found.runs)
    # Even if only the ending differs.
    same = plan("frozen:/a/best.safetensors", "frozen:/a/best.pth")
    assert same.arm_names == ["frozen:/a/best.safetensors", "frozen:/a/best.pth"]


def test_games_with_similar_names_do_not_share_a_directory() -> None:
    found = plan(games=("my:Env-v0", "my/Env-v0"))
    assert len({run.directory for run in found.runs}) == len(found.runs)


def test_a_study_evaluates_at_ten_points_and_cheaply_unless_told_otherwise() -> None:
    base = TrainConfig(total_steps=60_001)
    usual = with_interim_evaluations(base, set())
    # The tenth evaluation is the one at the end.
    assert (usual.eval_every, base.total_steps // usual.eval_every) == (6_001, 9)
    assert (usual.interim_episodes, usual.interim_max_steps) == (5, 5_000)
    assert (usual.eval_episodes, usual.video_every) == (30, 0)
    # A game of an evaluation is no longer than the training between two evaluations.
    assert with_interim_evaluations(TrainConfig(total_steps=1_000), ()).interim_max_steps == 100
    given = replace(base, eval_every=0, interim_episodes=9, video_every=7)
    names = {"eval_every", "interim_episodes", "video_every"}
    assert with_interim_evaluations(given, names) == given
    assert with_interim_evaluations(replace(base, eval_episodes=2), ()).interim_episodes == 2


def test_a_written_plan_is_read_back_equal() -> None:
    before = plan("scratch", "scratch:impala,width=2", "frozen:resnet18@imagenet")
    after = StudyPlan.from_json(json.loads(json.dumps(before.to_json())))
    then, now = ([run.config.with_batch_size() for run in each.runs] for each in (before, after))
    assert now == then
    assert differences(before.to_json(), after.to_json()) == []


def test_differences_of_two_plans_are_listed() -> None:
    before = plan().to_json()
    assert differences(before, plan(seeds=(3, 4)).to_json()) == ["--seeds 3, 4, 5 there, 3, 4 here"]
    longer = replace(TINY, total_steps=64, ppo=replace(TINY.ppo, gamma=0.5))
    found = differences(before, plan(base=longer).to_json())
    assert found == ["--total-steps 32 there, 64 here", "--ppo.gamma 0.99 there, 0.5 here"]
    found = differences(before, plan("scratch", "scratch:impala").to_json())
    assert found == ["--arms scratch, frozen-random there, scratch, scratch:impala here"]


def test_an_option_that_an_older_plan_lacks_had_its_default() -> None:
    older = plan().to_json()
    del older["options"]["feature_dtype"]
    del older["options"]["ppo"]["clip_range_schedule"]
    assert differences(older, plan().to_json()) == []
    changed = plan(base=replace(TINY, ppo=replace(TINY.ppo, clip_range_schedule="constant")))
    assert differences(older, changed.to_json()) == [
        "--ppo.clip-range-schedule linear there, constant here"
    ]


def test_only_runtime_options_of_a_run_may_differ_from_its_plan() -> None:
    planned = replace(TINY, precision="auto")
    elsewhere = replace(TINY, num_threads=7, precision="bf16", track="disabled")
    assert deviations(planned, elsewhere.to_json()) == []
    longer = replace(TINY, total_steps=64, ppo=replace(TINY.ppo, gamma=0.5))
    assert deviations(TINY, longer.to_json()) == [
        "--total-steps 64 there, 32 here",
        "--ppo.gamma 0.5 there, 0.99 here",
    ]


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_a_run_resolved_on_any_machine_is_as_planned(algo: Any, num_envs: int) -> None:
    planned = replace(preset_config("zoo", algo), num_envs=num_envs)
    assert deviations(planned, planned.resolve().to_json()) == []


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_a_default_batch_size_equals_its_number(algo: Any) -> None:
    default, named = (
        plan(base=replace(config, ppo=replace(config.ppo, batch_size=batch_size)))
        for config, batch_size in itertools.product([preset_config("zoo", algo)], [0, 256])
    )
    # A study of a version whose default was 256 is found by its command and resumed.
    assert default_study_dir(default) == default_study_dir(named)
    for before, now in itertools.product([default, named], repeat=2):
        # As from_json reads it, a plan on disk may hold the 0.
        then = {**before.to_json(), "options": before.base.to_json()}
        assert differences(then, now.to_json()) == []
    other = replace(named.base, ppo=replace(named.base.ppo, batch_size=128))
    assert differences(default.to_json(), plan(base=other).to_json()) == [
        "--ppo.batch-size 256 there, 128 here"
    ]


def test_options_of_transfer_apply_only_to_their_kind_of_arm() -> None:
    base = replace(TINY, feature_dtype="bf16", unfreeze_at_step=8)
    arms = ("scratch", "frozen-random", "finetune:imagenet")
    configs = {parse_arm(arm).configure(base).mode: parse_arm(arm).configure(base) for arm in arms}
    for config in configs.values():
        config.validate()
    assert {mode: (c.feature_dtype, c.unfreeze_at_step) for mode, c in configs.items()} == {
        "train": ("auto", 0),
        "frozen": ("bf16", 0),
        "finetune": ("auto", 8),
    }


def test_runtime_options_are_no_part_of_a_plan() -> None:
    elsewhere = replace(TINY, num_threads=7, device="cuda", track="disabled", video_every=5)
    assert differences(plan().to_json(), plan(base=elsewhere).to_json()) == []


def test_changed_weights_make_another_plan_and_deleted_weights_do_not(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "small.safetensors"
    save_encoder(create_encoder("lenet", (2, 36, 36), features_dim=16), weights)
    with_weights = plan("scratch", f"frozen:{weights}")
    before = with_weights.to_json()
    assert differences(before, with_weights.to_json()) == []
    save_encoder(create_encoder("lenet", (2, 36, 36), features_dim=16), weights)
    (found,) = differences(before, with_weights.to_json())
    assert "have changed" in found
    weights.unlink()
    assert differences(before, with_weights.to_json()) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"arms": (parse_arm("scratch"),)}, "--arms scratch leaves nothing to compare"),
        ({"arms": ()}, "expected at least 2 arms"),
        ({"seeds": (0,)}, "--seeds 1 cannot show chance: expected at least 2"),
        ({"games": ()}, "--games names no game"),
        ({"games": ("ALE/Pong-v5",) * 2}, '--games names "ALE/Pong-v5" 2 times'),
        ({"arms": (parse_arm("scratch"),) * 2}, '--arms names "scratch" 2 times'),
        (
            {"arms": (parse_arm("scratch"), parse_arm("scratch:lenet"))},
            '"scratch" and "scratch:lenet" are the same training',
        ),
        ({"base": replace(TINY, eval_episodes=0)}, "--eval-episodes 0 leaves nothing to compare"),
        ({"base": replace(TINY, eval_episodes=-3)}, "--eval-episodes -3 leaves nothing"),
        ({"base": replace(TINY, total_steps=0)}, "--total-steps 0"),
        ({"seeds": (2**31 - 1, 2**31)}, "leaves no room"),
    ],
)
def test_a_plan_that_could_show_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(**changes).validate()


def test_one_file_under_two_names_is_one_training(tmp_path: Path) -> None:
    weights = tmp_path / "small.safetensors"
    save_encoder(create_encoder("lenet", (2, 36, 36), features_dim=16), weights)
    (tmp_path / "other.safetensors").symlink_to(weights)
    (tmp_path / "deep").mkdir()
    for name in ("other.safetensors", "deep/../small.safetensors"):
        with pytest.raises(UserError, match="are the same training"):
            plan(f"frozen:{weights}", f"frozen:{tmp_path / name}").validate()
    plan(f"frozen:{weights}", f"finetune:{weights}").validate()


def test_games_are_named_short_or_in_full() -> None:
    assert parse_games("Pong, ALE/Breakout-v5,support.games:Signals-v0") == (
        "ALE/Pong-v5",
        "ALE/Breakout-v5",
        "support.games:Signals-v0",
    )
    with pytest.raises(UserError, match=r'--games: .*"Pnog".*Did you mean "ALE/Pong-v5"'):
        parse_games("Breakout,Pnog")


def test_weights_are_tried_on_the_encoder_of_every_arm(tmp_path: Path) -> None:
    weights = tmp_path / "small.safetensors"
    save_encoder(create_encoder("lenet", (2, 36, 36), features_dim=16), weights)
    fitting = plan("scratch", f"frozen:{weights}", games=GAMES[:1])
    fitting.check_builds(fitting.runs)
    wrong = plan("scratch", f"finetune:nature@{weights}", games=GAMES[:1])
    with pytest.raises(UserError, match=r'--arms "finetune:nature@small": .*holds weights of'):
        wrong.check_builds(wrong.runs)
    missing = plan("scratch", f"finetune:{tmp_path}/smal.safetensors", games=GAMES[:1])
    with pytest.raises(UserError, match=r'does not exist\. Did you mean "small.safetensors"'):
        missing.check_builds(missing.runs)
