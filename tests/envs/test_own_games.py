"""Environments with arguments, wrappers and Dict observations, in this process and in others."""

import os
import signal
import sys
from contextlib import closing
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from support.games import Signals, play, random_actions

from envs import (
    AtariVecEnv,
    EnvConfig,
    EnvironmentFailure,
    SingleAtariVecEnv,
    UserError,
    film_episode,
    get_protocol,
    make_vec_env,
)

SIGNALS = "support.games:Signals-v0"
BREAKOUT = "ALE/Breakout-v5"


class Brighter(gym.ObservationWrapper):
    """Adds 1 to every pixel."""

    def observation(self, observation):
        return observation + np.uint8(1)


class Invert(gym.ObservationWrapper):
    def observation(self, observation):
        return 255 - observation


class Captioned(gym.ObservationWrapper):
    """A Dict of the image, a number, and, if asked for, a second image."""

    def __init__(self, env, images=("image",)):
        super().__init__(env)
        self.images = images
        self.observation_space = spaces.Dict(
            {"mission": spaces.Discrete(3), **dict.fromkeys(images, env.observation_space)}
        )

    def observation(self, observation):
        return {"mission": 1, **dict.fromkeys(self.images, observation)}


def two_images(env):
    return Captioned(env, ("left", "right"))


def unfit_images(env):
    """A Dict of one image of floats, and one in a Dict of its own."""
    env = Captioned(env)
    floats = spaces.Box(0, 1, (8, 8, 3), np.float32)
    nested = spaces.Dict(image=env.observation_space["image"])
    env.observation_space = spaces.Dict(floats=floats, nested=nested)
    return env


class Forgetful(Captioned):
    """Leaves the image out, or gives it without its Dict."""

    def __init__(self, env, bare=False):
        super().__init__(env)
        self.bare = bare

    def observation(self, observation):
        return observation if self.bare else {"mission": 1}


def bare(env):
    return Forgetful(env, bare=True)


def limited(env):
    return TimeLimit(env, 3)


def no_environment(env):
    return 7


def failing(env):
    raise KeyError("level.png")


class Dying(Signals):
    """Ends its process at a step."""

    def __init__(self, kill=False, at=3, **kwargs):
        super().__init__(**kwargs)
        self.left, self.kill = at, kill

    def step(self, action):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL) if self.kill else os._exit(3)
        return super().step(action)


class Interrupting(Signals):
    """Sends its process a signal at each step, as a terminal does to all of a program's."""

    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def step(self, action):
        os.kill(os.getpid(), self.number)
        return super().step(action)


class Unsendable(Signals):
    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"rule": lambda: 0}


class Failing(Signals):
    def step(self, action):
        raise KeyError("sprite.png")


HERE = __name__
gym.register("Dying-v0", Dying)
gym.register("Interrupting-v0", Interrupting)
gym.register("Unsendable-v0", Unsendable)
gym.register("Failing-v0", Failing)
gym.register("Captioned-v0", lambda: Captioned(Signals()))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Wrappers of this file, which pytest imports under a name that no import finds."""
    monkeypatch.setitem(sys.modules, "own_games", sys.modules[__name__])


def first_of(config, **options):
    with closing(make_vec_env(config, 1, obs_size=36, frame_stack=1, **options)) as venv:
        return venv.reset()[0, 0]


def assert_equal_steps(one, other, steps=40):
    """Both vectors give the same, from the reset on."""
    np.testing.assert_array_equal(one.reset(), other.reset())
    assert one.reset_infos == other.reset_infos
    for actions in random_actions(one, steps):
        first, second = one.step(actions), other.step(actions)
        for ours, theirs in zip(first[:3], second[:3], strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(first[3], second[3], strict=True):
            for info in (ours, theirs):
                if "episode" in info:
                    info["episode"].pop("t")
            assert ours.keys() == theirs.keys()
            for name, value in ours.items():
                np.testing.assert_array_equal(value, theirs[name])
        assert one.reset_infos == other.reset_infos
    one.close()
    other.close()


class TestChanges:
    def test_arguments_reach_the_environment(self):
        with closing(make_vec_env(EnvConfig(SIGNALS, {"length": 2}), 1, obs_size=36)) as venv:
            venv.reset()
            assert [venv.step(np.zeros(1, int))[2][0] for _ in range(4)] == [0, 1, 0, 1]

    def test_wrappers_are_applied_in_order(self):
        plain = first_of(EnvConfig(SIGNALS))
        wrappers = ("own_games:Brighter", "own_games:Invert")
        changed = first_of(EnvConfig(SIGNALS, wrappers=wrappers))
        np.testing.assert_array_equal(changed, 255 - (plain + np.uint8(1)))

    def test_the_image_of_a_dict_is_observed(self, caplog):
        plain = first_of(EnvConfig(SIGNALS))
        config = EnvConfig(SIGNALS, wrappers=("own_games:Captioned",))
        np.testing.assert_array_equal(first_of(config), plain)
        assert 'the agent observes "image" alone' in caplog.text
        config = EnvConfig(SIGNALS, wrappers=("own_games:two_images",), obs_key="right")
        np.testing.assert_array_equal(first_of(config), plain)

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"kwargs": {"lenght": 3}}, "with --env-kwargs lenght 3: TypeError.*'lenght'"),
            ({"wrappers": ("Brighter",)}, 'wrapper "Brighter": expected module:Wrapper'),
            (
                {"wrappers": ("nowhere:W",)},
                'cannot import "nowhere" of --env-wrapper.*start in its',
            ),
            ({"wrappers": ("own_games:Brigter",)}, 'no "Brigter". Did you mean "Brighter"?'),
            ({"wrappers": ("own_games:HERE",)}, "is a str: expected a wrapper"),
            ({"wrappers": ("own_games:failing",)}, r"raised KeyError: 'level.png' \([^()]*\)$"),
            ({"wrappers": ("a:B,c:D",)}, "repeat the option, --env-wrapper a:B --env-wrapper c:D$"),
            ({"wrappers": ("[a:B; c:D]",)}, "repeat the option, --env-wrapper a:B --env-w.* c:D$"),
            ({"wrappers": ("own_games:no_environment",)}, "made a int: expected a gymnasium.Env"),
            ({"obs_key": "image"}, "has no Dict of observations but a Box"),
            (
                {"wrappers": ("own_games:Captioned",), "obs_key": "imag"},
                'observes image, mission. Did you mean "image"?',
            ),
            ({"wrappers": ("own_games:two_images",)}, "give --obs-key left or right"),
            (
                {"wrappers": ("own_games:unfit_images",)},
                r"floats \(Box float32 \(8, 8, 3\)\), nested \(Dict.*\): expected images, uint8",
            ),
            (
                {"wrappers": ("own_games:two_images",), "obs_key": "mission"},
                r'"mission": .*\(Discrete\(3\)\).*: expected images.*--obs-key left or right',
            ),
        ],
    )
    def test_a_wrong_change_is_one_line(self, changes, line):
        with pytest.raises(UserError, match=line) as caught:
            make_vec_env(EnvConfig(SIGNALS, **changes), 1, obs_size=36)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("wrapper", ["AddRenderObservation", "RenderCollection"])
    @pytest.mark.parametrize("env_id", ["CartPole-v1", BREAKOUT])
    def test_a_wrapper_that_renders_names_the_option_that_it_needs(self, env_id, wrapper):
        config = EnvConfig(env_id, wrappers=(f"gymnasium.wrappers:{wrapper}",))
        with pytest.raises(UserError, match=r"Give --env-kwargs render_mode rgb_array$"):
            make_vec_env(config, 1, obs_size=36)

    def test_what_is_rendered_is_observed(self):
        wrapper = ("gymnasium.wrappers:AddRenderObservation",)
        with pytest.raises(UserError) as caught:
            make_vec_env("CartPole-v1", 1)
        assert str(caught.value).endswith(
            f"give --env-kwargs render_mode rgb_array --env-wrapper {wrapper[0]}"
        )
        pytest.importorskip("pygame", reason="gymnasium renders CartPole by pygame")
        config = EnvConfig("CartPole-v1", {"render_mode": "rgb_array"}, wrapper)
        assert first_of(config).any()

    @pytest.mark.parametrize(
        ("wrapper", "found"), [("Forgetful", "a Dict of mission"), ("bare", "a ndarray")]
    )
    def test_an_observation_without_the_key_is_one_line(self, wrapper, found):
        config = EnvConfig(SIGNALS, wrappers=(f"own_games:{wrapper}",))
        with (
            closing(make_vec_env(config, 1, obs_size=36)) as venv,
            pytest.raises(EnvironmentFailure, match=f'{found}, without "image", which its space'),
        ):
            venv.reset()


class TestWorkers:
    @pytest.mark.parametrize("num_envs", [1, 3])
    def test_give_what_one_process_gives(self, num_envs):
        options = {"obs_size": 36, "frame_stack": 2, "seed": 5, "max_episode_steps": 6}
        config = {"kwargs": {"colour": True}, "wrappers": ("gymnasium.wrappers:OrderEnforcing",)}
        one, other = (
            make_vec_env(EnvConfig(SIGNALS, workers=workers, **config), num_envs, **options)
            for workers in (0, 2)
        )
        assert_equal_steps(one, other, 20)

    def test_give_the_same_atari_games(self):
        config = {"env_id": BREAKOUT, "kwargs": {"mode": 4, "difficulty": 1}}
        one, other = (
            make_vec_env(EnvConfig(workers=workers, **config), 2, obs_size=24, seed=3)
            for workers in (0, 2)
        )
        assert_equal_steps(one, other)

    def test_warn_by_this_process_which_says_it_once(self, caplog):
        for workers in (2, 0, 1):
            make_vec_env(EnvConfig("Captioned-v0", workers=workers), 2, obs_size=36).close()
            assert caplog.text.count('"Captioned-v0": the agent observes "image" alone') == 1

    def test_answer_as_environments_do(self):
        venv = make_vec_env(EnvConfig(SIGNALS, workers=2), 3, obs_size=36)
        venv.reset()
        venv.set_attr("length", 1, indices=[0, 2])
        assert venv.get_attr("length") == [1, 8, 1]
        assert not venv.has_attr("nothing")
        assert [image.shape for image in venv.env_method("_show", indices=1)] == [(36, 36)]
        assert venv.env_is_wrapped(TimeLimit) == [False] * 3
        venv.step_async(np.zeros(3, int))
        # The unfinished step is dropped.
        assert venv.reset().shape == (3, 4, 36, 36)
        venv.close()
        venv.close()

    @pytest.mark.parametrize(("kill", "how"), [(False, "exit status 3"), (True, "SIGKILL")])
    def test_one_that_dies_is_one_line(self, kill, how):
        config = EnvConfig("Dying-v0", {"kill": kill}, workers=2)
        venv = make_vec_env(config, 2, obs_size=36)
        venv.reset()
        actions = np.zeros(2, int)
        venv.step(actions)
        venv.step(actions)
        with pytest.raises(EnvironmentFailure, match=f'"Dying-v0" died .{how}.'):
            venv.step(actions)
        with pytest.raises(EnvironmentFailure, match="died"):
            venv.reset()
        venv.close()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_outlive_signals_to_the_whole_group(self, number):
        config = EnvConfig("Interrupting-v0", {"number": int(number)}, workers=1)
        with closing(make_vec_env(config, 1, obs_size=36)) as venv:
            venv.reset()
            for _ in range(2):
                assert len(venv.step(np.zeros(1, int))[0]) == 1

    @pytest.mark.parametrize(
        ("env_id", "line"),
        [
            ("Unsendable-v0", "cannot be sent to another process: .*--env-workers 0"),
            ("Failing-v0", "\"Failing-v0\" raised KeyError: 'sprite.png'"),
        ],
    )
    def test_a_failure_is_one_line(self, env_id, line):
        with closing(make_vec_env(EnvConfig(env_id, workers=2), 2, obs_size=36)) as venv:
            venv.reset()
            with pytest.raises(EnvironmentFailure, match=line) as caught:
                venv.step(np.zeros(2, int))
            assert "\n" not in str(caught.value)
            # The others answered too, and can begin again.
            assert len(venv.reset()) == 2

    def test_an_environment_that_cannot_be_made_is_one_line(self):
        with pytest.raises(UserError, match="TypeError"):
            make_vec_env(EnvConfig(SIGNALS, {"lenght": 3}, workers=2), 2, obs_size=36)


class TestAtari:
    @pytest.mark.parametrize(
        ("game", "protocol", "obs"),
        [
            ("Breakout", "classic", "grey"),
            ("Seaquest", "classic", "rgb"),
            ("Pong", "sticky", "grey"),
        ],
    )
    def test_single_games_equal_those_of_the_vector(self, game, protocol, obs):
        # A draw of no-ops depends on the C++ library: "0 to 0" does not.
        rules = replace(get_protocol(protocol), noop_max=min(get_protocol(protocol).noop_max, 1))
        options = {"protocol": rules, "obs": obs, "obs_size": 30, "seed": 7}
        vector = AtariVecEnv(f"ALE/{game}-v5", 2, **options)
        single = SingleAtariVecEnv(EnvConfig(f"ALE/{game}-v5"), 2, **options)
        actions = random_actions(vector, 250)
        np.testing.assert_array_equal(vector.reset(), single.reset())
        ends = 0
        for action in actions:
            first, second = vector.step(action), single.step(action)
            for ours, theirs in zip(first[:3], second[:3], strict=True):
                np.testing.assert_array_equal(ours, theirs)
            for ours, theirs in zip(first[3], second[3], strict=True):
                assert ours["lives"] == theirs["lives"]
                assert ours.get("life_loss") == theirs.get("life_loss")
                if "terminal_observation" in ours:
                    ends += 1
                    np.testing.assert_array_equal(
                        ours["terminal_observation"], theirs["terminal_observation"]
                    )
                    assert ours["TimeLimit.truncated"] == theirs["TimeLimit.truncated"]
                if "episode" in ours:
                    assert ours["episode"]["r"] == theirs["episode"]["r"]
        assert ends or game == "Pong"
        vector.close()

    def test_a_mode_changes_the_game(self):
        def screens(**kwargs):
            config = EnvConfig(BREAKOUT, {"difficulty": 0, **kwargs})
            with closing(make_vec_env(config, 1, obs_size=60)) as venv:
                return np.stack([s[0] for s in play(venv, random_actions(venv, 30))])

        np.testing.assert_array_equal(screens(), screens(mode=0))
        assert (screens(mode=0) != screens(mode=12)).any()

    def test_evaluation_plays_whole_games(self):
        config = EnvConfig(BREAKOUT, {"mode": 12})
        with closing(make_vec_env(config, 1, obs_size=16, training=False)) as venv:
            steps = play(venv, random_actions(venv, 150))
        assert not any("life_loss" in infos[0] for *_, infos in steps)
        assert min(infos[0]["lives"] for *_, infos in steps) < 5

    def test_a_film_shows_the_mode(self, tmp_path):
        seen = []

        def act(observations):
            seen.append(observations.copy())
            return np.array([len(seen) % 4])

        config = EnvConfig(BREAKOUT, {"mode": 12})
        film_episode(config, act, tmp_path / "f.mp4", obs_size=40, seed=2, max_episode_steps=20)
        venv = make_vec_env(config, 1, obs_size=40, seed=2, training=False)
        np.testing.assert_array_equal(seen[0], venv.reset())
        for i, observations in enumerate(seen[1:]):
            np.testing.assert_array_equal(observations, venv.step(np.array([(i + 1) % 4]))[0])
        venv.close()

    def test_a_wrapper_that_begins_a_game_by_itself_does_not_end_the_film(self, tmp_path):
        wrappers = ("gymnasium.wrappers:AddRenderObservation",)
        config = EnvConfig(BREAKOUT, {"render_mode": "rgb_array"}, wrappers)
        film = film_episode(
            config, lambda seen: np.zeros(1, int), tmp_path / "f.mp4", max_episode_steps=3
        )
        # The start of a game and 3 steps of 4 frames.
        assert film.frames >= 1 + 3 * 4

    @pytest.mark.parametrize(
        ("kwargs", "line"),
        [
            ({"mode": 13}, "mode 13: .* has no such mode; expected one of 0, 4, 8, 12"),
            ({"mode": 4.0}, "mode 4.0: .* has no such mode"),
            ({"difficulty": "hard"}, "difficulty hard: .* expected one of 0, 1"),
            ({"repeat_action_probability": 0.5}, "--protocol classic decides"),
            ({"frameskip": 2}, "takes mode, difficulty and render_mode"),
        ],
    )
    def test_other_arguments_are_one_line(self, kwargs, line):
        with pytest.raises(UserError, match=line):
            make_vec_env(EnvConfig(BREAKOUT, kwargs), 1)

    def test_workers_of_an_emulator_with_threads_are_noted(self, caplog):
        make_vec_env(EnvConfig(BREAKOUT, workers=3), 1, obs_size=16).close()
        assert "--env-workers 3 has no effect" in caplog.text


def test_minigrid():
    pytest.importorskip("minigrid")
    config = EnvConfig(
        "minigrid:MiniGrid-Empty-5x5-v0", wrappers=("minigrid.wrappers:RGBImgObsWrapper",)
    )
    with closing(make_vec_env(config, 2, obs="rgb")) as venv:
        assert venv.reset().shape == (2, 12, 84, 84)
        assert len(play(venv, random_actions(venv, 20))) == 20
