"""PixelVecEnv on a tiny environment whose every frame is known."""

import functools

import cv2
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import AddRenderObservation, TimeLimit
from stable_baselines3.common.monitor import Monitor

from envs import FrameStacking, PixelVecEnv, UserError, frame_stacking, make_vec_env
from envs.pictures import to_grey, to_rgb
from envs.pixels import make_pixel_vec_env

LENGTH = 5


class Counter(gym.Env):
    """Its picture's brightness is 10 * (1 + steps); actions 1..3 are rewards; five steps long."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, shape=(8, 8, 3), actions=None, render_mode=None):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = actions or spaces.Discrete(3, start=1)
        self.render_mode = render_mode
        self.steps = 0
        self.seen = []

    def picture(self):
        return np.full(self.observation_space.shape, 10 * (1 + self.steps), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen.append((seed, options))
        self.steps = 0
        return self.picture(), {"seed": seed}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self.picture(), float(action), self.steps == LENGTH, False, {"steps": self.steps}

    def render(self):
        return np.full((9, 7, 3), 10 * (1 + self.steps), np.uint8)


def make(num_envs: int = 2, shape=(8, 8, 3), **options) -> PixelVecEnv:
    options = {"obs_size": 8, "frame_stack": 3, **options}
    return PixelVecEnv([lambda: Counter(shape)] * num_envs, **options)


def brightness(observation: np.ndarray) -> list[int]:
    """One number for each channel, each of which is all of one brightness."""
    assert (observation == observation[:, :1, :1]).all()
    return observation[:, 0, 0].tolist()


def test_frames_are_stacked_oldest_first_after_zeros():
    env = make()
    assert brightness(env.reset()[0]) == [0, 0, 10]
    shown = [brightness(env.step(np.zeros(2, int))[0][1]) for _ in range(3)]
    assert shown == [[0, 10, 20], [10, 20, 30], [20, 30, 40]]


def test_colour_stacks_the_channels_of_each_frame():
    env = make(obs="rgb", frame_stack=2)
    env.reset()
    observations, *_ = env.step(np.zeros(2, int))
    assert observations.shape == (2, 6, 8, 8)
    assert brightness(observations[0]) == [10] * 3 + [20] * 3
    assert frame_stacking(env) == FrameStacking(2, 3, "zeros")


def test_an_ended_episode_starts_anew_in_the_same_step():
    env = make()
    env.reset()
    for step in range(1, LENGTH + 1):
        observations, rewards, dones, infos = env.step(np.array([0, 2]))
        assert (rewards.dtype, rewards.tolist()) == (np.float32, [1.0, 3.0])
        assert (dones.dtype, dones.tolist()) == (bool, [step == LENGTH] * 2)
        assert [info["steps"] for info in infos] == [step] * 2
    assert brightness(observations[0]) == [0, 0, 10]
    assert brightness(infos[0]["terminal_observation"]) == [40, 50, 60]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, False]
    assert [(info["episode"]["r"], info["episode"]["l"]) for info in infos] == [(5, 5), (15, 5)]
    _, _, dones, infos = env.step(np.array([0, 2]))
    assert not dones.any()
    assert infos[0] == {"steps": 1}


def test_the_step_limit_truncates():
    env = make(max_episode_steps=2)
    env.reset()
    env.step(np.zeros(2, int))
    observations, _, dones, infos = env.step(np.zeros(2, int))
    assert dones.all()
    assert infos[1]["TimeLimit.truncated"] is True
    assert brightness(infos[1]["terminal_observation"]) == [10, 20, 30]
    assert infos[1]["episode"]["l"] == 2
    assert brightness(observations[1]) == [0, 0, 10]


@pytest.mark.parametrize("limit", [LENGTH, 3])
def test_an_end_at_the_limit_is_no_truncation(limit):
    env = PixelVecEnv([lambda: TimeLimit(Counter(), limit)], obs_size=8, max_episode_steps=LENGTH)
    env.reset()
    for _ in range(limit):
        _, _, dones, infos = env.step(np.zeros(1, int))
    assert dones[0]
    assert infos[0]["TimeLimit.truncated"] is (limit < LENGTH)


def test_returned_arrays_are_the_callers():
    env = make()
    first = env.reset()
    first[:] = 99
    second, *_ = env.step(np.zeros(2, int))
    assert brightness(second[0]) == [0, 10, 20]
    third, *_ = env.step(np.zeros(2, int))
    assert brightness(second[0]) == [0, 10, 20]
    assert not np.shares_memory(second, third)


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3), (1, 12, 10), (3, 12, 10)])
@pytest.mark.parametrize("obs", ["grey", "rgb"])
def test_every_layout_of_an_image_becomes_the_same_frame(shape, obs):
    space = spaces.Box(0, 255, shape, np.uint8)
    rng = np.random.default_rng(0)
    image = rng.integers(256, size=shape, dtype=np.uint8)
    rgb = image.transpose(1, 2, 0) if shape[0] in (1, 3) else image
    rgb = np.broadcast_to(rgb.reshape(12, 10, -1), (12, 10, 3)).copy()
    np.testing.assert_array_equal(to_rgb(image), rgb)

    class Still(Counter):
        def picture(self):
            return image

    env = PixelVecEnv([lambda: Still(space.shape)], obs=obs, obs_size=6, frame_stack=2)
    newest = env.reset()[0, env.frame_stacking.channels :]
    expected = rgb if obs == "rgb" else to_grey(image)[:, :, None]
    expected = cv2.resize(expected, (6, 6), interpolation=cv2.INTER_AREA).reshape(6, 6, -1)
    np.testing.assert_array_equal(newest, expected.transpose(2, 0, 1))


def test_grey_weighs_colours_as_television_did():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert to_grey(red)[0, 0] == round(0.299 * 255)


def test_seeds_and_options_are_used_once():
    env = make(seed=3)
    seeds = env.seed(4)
    env.set_options({"level": 1})
    env.reset()
    env.reset()
    seen = env.get_attr("seen")
    assert seen == [[(seed, {"level": 1}), (None, None)] for seed in seeds]
    assert all(type(seed) is int for seed in seeds)
    assert make(seed=4).seed(4) == seeds
    assert len(set(seeds) | set(env.seed(5))) == 4
    assert env.reset_infos == [{"seed": None}] * 2


class TestAsVecEnv:
    def test_reaches_into_the_environments(self):
        env = make()
        env.set_attr("note", "here", indices=1)
        assert env.get_attr("note", indices=[1]) == ["here"]
        assert not env.has_attr("note")
        assert env.get_attr("env_id") == ["Counter"] * 2
        assert [image[0, 0, 0] for image in env.env_method("picture")] == [10, 10]
        env.close()

    def test_is_monitored(self):
        env = PixelVecEnv([lambda: TimeLimit(Counter(), 3)], obs_size=8)
        assert env.env_is_wrapped(Monitor) == [True]
        assert env.env_is_wrapped(TimeLimit) == [True]
        assert env.env_is_wrapped(AddRenderObservation) == [False]

    def test_renders(self):
        env = PixelVecEnv([lambda: Counter(render_mode="rgb_array")] * 2, obs_size=8)
        env.reset()
        assert env.render_mode == "rgb_array"
        assert [image.shape for image in env.get_images()] == [(9, 7, 3)] * 2

    def test_wrong_orders_are_refused(self):
        env = make()
        with pytest.raises(RuntimeError, match=r"reset\(\)"):
            env.step(np.zeros(2, int))
        env.reset()
        with pytest.raises(RuntimeError, match="without step_async"):
            env.step_wait()
        with pytest.raises(UserError, match=r"within 0\.\.2"):
            env.step(np.array([0, 3]))
        env.step(np.zeros(2, int))


@pytest.mark.parametrize(
    ("env_fns", "line"),
    [
        ([], "num_envs must be a whole number of at least 1, not 0"),
        (
            [lambda: Counter(shape=(8, 8, 4))],
            r"observations Box uint8 \(8, 8, 4\): expected images",
        ),
        ([lambda: Counter(actions=spaces.Box(-1, 1, (2,)))], r"the actions Box.*Discrete"),
        ([lambda: Counter(), lambda: Counter(actions=spaces.Discrete(2))], "equal actions"),
        ([functools.cache(Counter)] * 2, "environment of its own"),
    ],
)
def test_unfit_environments_are_refused(env_fns, line):
    with pytest.raises(UserError, match=line) as caught:
        PixelVecEnv(env_fns, obs_size=16)
    assert "\n" not in str(caught.value)


@pytest.fixture
def counter_id():
    gym.register("Counter-v3", Counter)
    yield "Counter-v3"
    del gym.registry["Counter-v3"]


class TestById:
    def test_any_registered_id_will_do(self, counter_id):
        env = make_vec_env(counter_id, 2, obs_size=16, frame_stack=2, max_episode_steps=4)
        assert isinstance(env, PixelVecEnv)
        assert env.reset().shape == (2, 2, 16, 16)
        assert env.get_attr("env_id") == [counter_id] * 2
        for _ in range(4):
            _, _, dones, _ = env.step(np.zeros(2, int))
        assert dones.all()

    def test_a_module_is_imported_first(self, tmp_path, monkeypatch):
        (tmp_path / "my_worlds.py").write_text(
            "import gymnasium as gym\n"
            "from gymnasium import spaces\n"
            "class World(gym.Env):\n"
            "    observation_space = spaces.Box(0, 255, (9, 9), 'uint8')\n"
            "    action_space = spaces.Discrete(2)\n"
            "gym.register('World-v0', World)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        env = make_vec_env("my_worlds:World-v0", 1, obs_size=9)
        assert env.action_space.n == 2

    @pytest.mark.parametrize(
        ("env_id", "line"),
        [
            ("Countr-v3", r'unknown environment "Countr-v3"\. Did you mean "Counter-v3"\?'),
            ("Counter", r'unknown environment "Counter"\. Did you mean "Counter-v3"\?'),
            ("no_such_module:World-v0", 'cannot import "no_such_module"'),
            (
                "CartPole-v1",
                r'"CartPole-v1" has the observations Box float32 \(4,\): expected images',
            ),
            ("Taxi-v4", r"observations Discrete\(500\): expected images"),
        ],
    )
    def test_unfit_ids_are_refused_in_one_line(self, counter_id, env_id, line):
        with pytest.raises(UserError, match=line) as caught:
            make_pixel_vec_env(env_id, 1)
        assert "\n" not in str(caught.value)

    def test_a_missing_dependency_is_named(self, monkeypatch):
        def missing(**kwargs):
            raise gym.error.DependencyNotInstalled("needs a box,\n  run `pip install box`")

        gym.register("Boxed-v0", missing)
        try:
            with pytest.raises(UserError, match='"Boxed-v0": needs a box, run `pip install box`'):
                make_pixel_vec_env("Boxed-v0", 1)
        finally:
            del gym.registry["Boxed-v0"]
