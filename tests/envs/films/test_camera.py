"""Films, read back with the ffmpeg that imageio brings."""

import dataclasses
import os
import sys

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium import spaces

from envs import AtariVecEnv, UserError, film_episode, get_protocol
from envs.config import EnvConfig
from envs.errors import EnvironmentFailure
from envs.films.camera import why_not_rendered
from envs.films.game import ATARI_FPS
from envs.films.mp4 import Mp4Writer


def read_film(path) -> tuple[dict, np.ndarray]:
    """What the file says of itself, and its pictures (n, height, width, 3)."""
    frames = imageio_ffmpeg.read_frames(str(path))
    about = next(frames)
    width, height = about["size"]
    return about, np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in frames])


class Actor:
    """Plays random actions and keeps what it saw."""

    def __init__(self, num_actions: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.num_actions = num_actions
        self.seen: list[np.ndarray] = []
        self.played: list[np.ndarray] = []

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        self.seen.append(observations.copy())
        self.played.append(self.rng.integers(self.num_actions, size=1))
        return self.played[-1]


@pytest.mark.parametrize(("obs", "fire"), [("grey", True), ("rgb", False)])
def test_the_actor_sees_what_it_would_see_in_training(tmp_path, obs, fire):
    protocol = dataclasses.replace(get_protocol("classic"), noop_max=0, use_fire_reset=fire)
    options = {"protocol": protocol, "obs": obs, "obs_size": 60, "frame_stack": 3}
    actor = Actor(4)
    film = film_episode(
        "ALE/Breakout-v5", actor, tmp_path / "film.mp4", max_episode_steps=60, **options
    )
    env = AtariVecEnv("ALE/Breakout-v5", 1, training=False, **options)
    observations, total = env.reset(), 0.0
    for seen, action in zip(actor.seen, actor.played, strict=True):
        np.testing.assert_array_equal(seen, observations)
        observations, rewards, *_ = env.step(action)
        total += rewards[0]
    assert film.episode_return == total
    assert film.frames == 1 + fire + 4 * film.length


class TestOfAGame:
    @pytest.fixture(scope="class")
    def film(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("films") / "made on the way" / "pong.mp4"
        actor = Actor(6, seed=1)
        return film_episode(
            "ALE/Pong-v5", actor, path, seed=3, max_episode_steps=100, caption_prefix="step 5"
        )

    def test_every_emulator_frame_is_shown_at_true_speed_in_colour(self, film):
        about, pictures = read_film(film.path)
        assert (about["codec"], about["fps"], about["size"]) == ("h264", ATARI_FPS, (320, 420))
        assert about["pix_fmt"].startswith("yuv420p")
        assert len(pictures) == film.frames
        # 100 steps of 4 frames, and an opening of the first picture, at most 29 no-ops and FIRE.
        assert 400 <= film.frames <= 431
        assert pictures.max() > 100
        # Pong's paddles are orange and green: not a grey film.
        assert np.ptp(pictures[-1].astype(int), axis=-1).max() > 50
        assert (pictures[0] != pictures[-1]).any()

    def test_the_caption_tells_the_films_own_return(self, film):
        assert film.truncated
        assert film.length == 100
        assert film.caption == (
            f"step 5 | ALE/Pong-v5: return {film.episode_return:g} in 100 steps "
            "(stopped by the step limit)"
        )

    def test_nothing_else_is_left_beside_it(self, film):
        assert os.listdir(film.path.parent) == ["pong.mp4"]


def test_a_whole_game_is_filmed_through_its_lost_lives(tmp_path):
    film = film_episode("ALE/Breakout-v5", Actor(4), tmp_path / "film.mp4", obs_size=16)
    assert not film.truncated
    assert film.length > 80
    steps = f"return {film.episode_return:g} in {film.length} steps"
    assert film.caption == f"ALE/Breakout-v5: {steps}"


@pytest.mark.slow
def test_seeds_and_sticky_actions(tmp_path):
    def seen(seed: int) -> list[np.ndarray]:
        actor = Actor(18)
        options = {"protocol": "sticky", "obs_size": 16, "max_episode_steps": 25}
        film_episode("ALE/Breakout-v5", actor, tmp_path / "film.mp4", seed=seed, **options)
        return actor.seen

    first = seen(0)
    np.testing.assert_array_equal(first, seen(0))
    assert (np.array(first) != np.array(seen(1))).any()


class Blinker(gym.Env):
    """Four steps of reward 1.5; odd sizes; what it renders is redder with every step."""

    observation_space = spaces.Box(0, 255, (9, 9), np.uint8)
    action_space = spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.full((9, 9), 50, np.uint8), {}

    def step(self, action):
        self.steps += 1
        return np.full((9, 9), 50 + self.steps, np.uint8), 1.5, self.steps == 4, False, {}

    def render(self):
        picture = np.zeros((211, 151, 3), np.uint8)
        picture[..., 0] = 50 * self.steps
        return picture


class Blind(Blinker):
    """Cannot render, and does not say how fast it is."""

    metadata = {"render_modes": []}  # noqa: RUF012


@pytest.fixture
def blinkers():
    gym.register("Blinker-v0", Blinker)
    gym.register("Blind-v0", Blind)
    yield
    del gym.registry["Blinker-v0"], gym.registry["Blind-v0"]


class Border:
    """An overlay: a blue border around the picture."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        self.scores: list[float] = []

    def begin(self, action_names) -> None:
        self.begun.append(list(action_names))

    def draw(self, picture: np.ndarray, score: float) -> np.ndarray:
        self.scores.append(score)
        return np.pad(picture, ((10, 10), (10, 10), (0, 0)))


@pytest.mark.parametrize("wrapper", [False, True])
def test_an_overlay_draws_every_picture_and_knows_the_score(tmp_path, wrapper):
    # A wrapper that the agent's rewards come from decides about the score, too.
    config = EnvConfig("ALE/Breakout-v5", wrappers=("support.games:Halved",) if wrapper else ())
    protocol = dataclasses.replace(get_protocol("classic"), noop_max=3)
    options = {"protocol": protocol, "obs_size": 16, "max_episode_steps": 150, "seed": 2}
    overlay = Border()
    film = film_episode(config, Actor(4, 1), tmp_path / "film.mp4", overlay=overlay, **options)
    about, pictures = read_film(film.path)
    assert (len(pictures), about["fps"]) == (film.frames, 60)
    assert about["size"] == (2 * (160 + 20), 2 * (210 + 20))
    assert overlay.begun == [["NOOP", "FIRE", "RIGHT", "LEFT"]]
    assert len(overlay.scores) == film.frames
    assert film.episode_return > 0
    assert overlay.scores[-1] == film.episode_return
    assert overlay.scores == sorted(overlay.scores)
    # One point each, or a half.
    assert set(np.diff(overlay.scores)) == {0, 0.5 if wrapper else 1}


@pytest.mark.usefixtures("blinkers")
class TestOfAnyEnvironment:
    def test_shows_what_it_renders(self, tmp_path):
        film = film_episode("Blinker-v0", Actor(2), tmp_path / "film.mp4", obs_size=9)
        about, pictures = read_film(film.path)
        assert (film.episode_return, film.length, film.frames, film.truncated) == (6, 4, 5, False)
        # Twice 151 x 211, which is even.
        assert (about["fps"], about["size"]) == (12, (302, 422))
        np.testing.assert_allclose(pictures[:, 9, 9, 0], [0, 50, 100, 150, 200], atol=12)

    def test_shows_its_observations_if_it_cannot_render(self, tmp_path):
        film = film_episode("Blind-v0", Actor(2), tmp_path / "film.mp4", obs_size=9)
        about, pictures = read_film(film.path)
        # 47 times 9 pixels, made even.
        assert (about["fps"], about["size"]) == (30, (424, 424))
        np.testing.assert_allclose(pictures[:, 9, 9, 0], [50, 51, 52, 53, 54], atol=6)


class Broken(Blinker):
    """Cannot be rendered in the way that its metadata say, or not in any."""

    def __init__(self, render_mode=None, rendered=None, **metadata):
        super().__init__(render_mode)
        self.rendered = rendered
        self.metadata = {**self.metadata, **metadata}

    def render(self):
        return self.rendered(self.steps)


class Modeless(Blinker):
    """Its constructor does not know the argument."""

    def __init__(self):
        super().__init__()


def fail(*args):
    raise RuntimeError("no display\nat all")


@pytest.fixture
def film_of():
    """Films an environment, which is registered for that time; what was said of it before, too."""

    def film(path, make, **kwargs):
        gym.register("Odd-v0", make, kwargs=kwargs)
        try:
            before = why_not_rendered("Odd-v0")
            return before, film_episode("Odd-v0", Actor(2), path / "film.mp4", obs_size=9)
        finally:
            del gym.registry["Odd-v0"]

    return film


def leave(*args, **kwargs):
    sys.exit("no licence")


def test_an_exit_in_the_first_reset_is_reported(film_of, tmp_path):
    with pytest.raises(EnvironmentFailure, match='"Odd-v0" raised SystemExit: no licence'):
        film_of(tmp_path, type("Leaving", (Blinker,), {"reset": leave}))


RED = np.full((20, 30, 3), (200, 0, 0), np.uint8)


class TestOfOddCameras:
    """Each is filmed: by what it renders, or else by its observations."""

    @pytest.mark.parametrize(
        "rendered",
        [np.dstack([RED, RED[..., 0]]), RED / 255, RED.astype(float), RED.tolist(), [RED]],
    )
    def test_odd_pictures(self, tmp_path, film_of, rendered):
        before, film = film_of(tmp_path, Broken, rendered=lambda steps: rendered)
        about, pictures = read_film(film.path)
        assert (before, film.no_render, len(pictures)) == (None, None, 5)
        assert about["size"] == (630, 420)
        np.testing.assert_allclose(pictures.mean(axis=(0, 1, 2)), [200, 0, 0], atol=12)

    def test_pictures_of_changing_size_take_the_first_ones(self, tmp_path, film_of):
        _, film = film_of(
            tmp_path, Broken, rendered=lambda steps: np.zeros((20 + steps, 30, 3), np.uint8)
        )
        assert read_film(film.path)[0]["size"] == (630, 420)

    @pytest.mark.parametrize(
        ("size", "filmed"),
        [
            ((1, 1), (420, 420)),
            ((2, 900), (900, 2)),
            ((900, 2), (2, 900)),
            # More than H.264 takes.
            ((3, 20_000), (4096, 2)),
            ((20_000, 3), (2, 4096)),
        ],
    )
    def test_odd_sizes(self, tmp_path, film_of, size, filmed):
        _, film = film_of(tmp_path, Broken, rendered=lambda steps: np.zeros((*size, 3), np.uint8))
        assert film.frames == 5
        assert read_film(film.path)[0]["size"] == filmed

    @pytest.mark.parametrize(
        ("make", "kwargs", "reason"),
        [
            (Modeless, {}, "its __init__ takes no render_mode"),
            (Broken, {"rendered": fail}, "render() raised RuntimeError: no display at all"),
            (Broken, {"rendered": lambda steps: None}, "render() returned None"),
            (Broken, {"rendered": lambda steps: []}, "render() returned an array of shape (0,)"),
            (Broken, {"rendered": lambda steps: RED * 2.0}, "render() returned values of 0..400"),
            (Blind, {}, "it has no render mode rgb_array"),
        ],
    )
    def test_what_cannot_be_rendered_is_observed(self, tmp_path, film_of, make, kwargs, reason):
        before, film = film_of(tmp_path, make, **kwargs)
        assert film.no_render == before
        assert reason in before
        _, pictures = read_film(film.path)
        np.testing.assert_allclose(pictures[:, 9, 9, 0], [50, 51, 52, 53, 54], atol=6)

    def test_an_environment_that_fails_where_it_is_to_render_is_observed(self, tmp_path, film_of):
        class NoDisplay(Blinker):
            def reset(self, **options):
                if self.render_mode:
                    raise SystemExit("no display")
                return super().reset(**options)

        before, film = film_of(tmp_path, NoDisplay)
        assert film.no_render == before
        assert before.startswith('"Odd-v0" raised SystemExit: no display')

    def test_metadata_that_cannot_be_read_are_none(self, tmp_path, film_of):
        class Unreadable(Blinker):
            @property
            def metadata(self):
                raise RuntimeError("metadata")

        before, film = film_of(tmp_path, Unreadable)
        assert before == film.no_render == "it has no render mode rgb_array"

    @pytest.mark.parametrize("modes", [None, 5])
    def test_metadata_that_name_no_modes(self, tmp_path, film_of, modes):
        class Nameless(Blinker):
            metadata = {"render_modes": modes}  # noqa: RUF012

        before, film = film_of(tmp_path, Nameless)
        assert before == film.no_render == "it has no render mode rgb_array"

    def test_an_overlay_begins_anew_with_another_game(self, tmp_path):
        gym.register("Odd-v0", Broken, kwargs={"rendered": lambda n: RED if n < 3 else fail()})
        overlay = Border()
        try:
            film = film_episode(
                "Odd-v0", Actor(2), tmp_path / "film.mp4", obs_size=9, overlay=overlay
            )
        finally:
            del gym.registry["Odd-v0"]
        assert overlay.begun == [["action 0", "action 1"]] * 2
        # The picture after the third step failed.
        assert overlay.scores == [0, 1.5, 3, 0, 1.5, 3, 4.5, 6]
        assert (film.frames, film.episode_return) == (5, 6)

    def test_a_camera_that_fails_on_the_way_films_another_game(self, tmp_path, film_of):
        before, film = film_of(
            tmp_path, Broken, rendered=lambda steps: RED if steps < 3 else fail()
        )
        assert before is None
        assert "render() raised RuntimeError" in film.no_render
        assert film.frames == 5
        assert os.listdir(tmp_path) == ["film.mp4"]

    @pytest.mark.parametrize("fps", [None, 0, -1, "fast", float("inf"), float("nan")])
    def test_an_odd_rate_becomes_30(self, tmp_path, film_of, fps):
        before, film = film_of(tmp_path, Broken, rendered=lambda steps: RED, render_fps=fps)
        assert (before, film.no_render, film.fps) == (None, None, 30)

    def test_observations_are_stretched_as_the_agent_sees_them(self, tmp_path, film_of):
        class Codes(Blind):
            observation_space = spaces.Box(0, 54, (9, 9), np.uint8)

        _, film = film_of(tmp_path, Codes)
        _, pictures = read_film(film.path)
        np.testing.assert_allclose(pictures[[0, -1], 9, 9, 0], [255 * 50 / 54, 255], atol=6)


class TestWhatCannotBeFilmed:
    def test_unwritable_paths(self, tmp_path):
        (tmp_path / "file").touch()
        for path in (tmp_path, tmp_path / "file" / "film.mp4"):
            with pytest.raises(UserError, match=f'cannot write the film "{path}": '):
                film_episode("ALE/Pong-v5", Actor(6), path)

    def test_an_act_that_fails_leaves_the_old_film(self, tmp_path):
        path = tmp_path / "film.mp4"
        path.write_bytes(b"old")

        def act(observations):
            raise KeyError("act")

        with pytest.raises(KeyError):
            film_episode("ALE/Pong-v5", act, path)
        assert os.listdir(tmp_path) == ["film.mp4"]
        assert path.read_bytes() == b"old"

    def test_an_encoder_that_dies_gives_one_line(self, tmp_path, monkeypatch):
        encoder = tmp_path / "encoder"
        encoder.write_text("#!/bin/sh\necho No space left on device >&2\nexit 1\n")
        encoder.chmod(0o755)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(encoder))
        path = tmp_path / "films" / "film.mp4"
        with pytest.raises(UserError, match=r'film.mp4": No space left on device$'):
            film_episode("ALE/Pong-v5", Actor(6), path)
        assert os.listdir(path.parent) == []

    def test_a_film_without_pictures(self, tmp_path):
        with (
            pytest.raises(UserError, match="it has no pictures"),
            Mp4Writer(tmp_path / "film.mp4", fps=30, height=420),
        ):
            pass

    @pytest.mark.parametrize(
        ("wrong", "line"),
        [
            ({"env": "ALE/Pongg-v5"}, "unknown Atari game"),
            ({"env": "PongNoFrameskip-v4"}, "unknown Atari game"),
            ({"protocol": "stick"}, "unknown protocol"),
            ({"obs": "gray"}, "unknown obs"),
            ({"seed": -1}, "seed must be"),
            ({"max_episode_steps": 0}, "max_episode_steps must be"),
        ],
    )
    def test_bad_values(self, tmp_path, wrong, line):
        options = {"env": "ALE/Pong-v5", **wrong}
        with pytest.raises(UserError, match=line):
            film_episode(act=Actor(6), path=tmp_path / "film.mp4", **options)
        assert os.listdir(tmp_path) == []
