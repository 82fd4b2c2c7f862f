"""What a user's environment breaks is one line; its images are stretched to 0..255."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs import PixelVecEnv, UserError, make_vec_env
from envs.errors import EnvironmentFailure, describe_error
from envs.stepping import checked


class Panic(BaseException):
    """As what a library in Rust raises: no Exception."""


class Still(gym.Env):
    """Shows one image for ever; a step returns what the test gives it."""

    action_space = spaces.Discrete(2)

    def __init__(
        self,
        image: Any = None,
        low: Any = 0,
        high: Any = 255,
        step: Callable[[Any], Any] | None = None,
        reset: Callable[[Any], Any] | None = None,
    ) -> None:
        self.image = np.full((9, 9), 50, np.uint8) if image is None else image
        shape = np.shape(self.image)
        space_shape = shape if len(shape) in (2, 3) else (9, 9)
        bounds = [np.broadcast_to(bound, space_shape).astype(np.uint8) for bound in (low, high)]
        self.observation_space = spaces.Box(*bounds, dtype=np.uint8)
        self._step = step or (lambda image: (image, 1.0, False, False, {}))
        self._reset = reset or (lambda image: (image, {}))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._reset(self.image)

    def step(self, action: Any) -> Any:
        return self._step(self.image)


def observed(obs: Any = "grey", **options: Any) -> np.ndarray:
    venv = PixelVecEnv([lambda: Still(**options)], obs=obs, obs_size=9, frame_stack=1)
    first = venv.reset()
    observations, *_ = venv.step(np.zeros(1, int))
    np.testing.assert_array_equal(observations, first)
    return observations[0]


def failure(**options: Any) -> str:
    with pytest.raises(EnvironmentFailure) as caught:
        observed(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestStretching:
    @pytest.mark.parametrize(
        ("low", "high", "values", "expected"),
        [
            (0, 1, [0, 1], [0, 255]),
            (0, 3, [0, 1, 2, 3], [0, 85, 170, 255]),
            (0, 10, [0, 5, 10], [0, 128, 255]),
            (100, 102, [100, 101, 102], [0, 128, 255]),
            (0, 254, [0, 127, 254], [0, 128, 255]),
            (0, 255, [0, 7, 255], [0, 7, 255]),
        ],
    )
    def test_declared_bounds_become_0_and_255(
        self, low: int, high: int, values: list[int], expected: list[int]
    ) -> None:
        image = np.resize(np.array(values, np.uint8), (9, 9))
        shown = observed(image=image, low=low, high=high)
        np.testing.assert_array_equal(shown[0], np.resize(np.array(expected, np.uint8), (9, 9)))

    def test_before_colours_are_mixed(self) -> None:
        image = np.zeros((9, 9, 3), np.uint8)
        image[..., 0] = 1
        # Red alone, as grey: 0.299 x 255, where 0.299 x 1 would have become 0.
        assert (observed(image=image, high=1) == 76).all()

    def test_values_beyond_the_bounds_are_refused(self) -> None:
        image = np.full((9, 9), 200, np.uint8)
        assert "declares 0..1: expected true bounds, or 0..255" in failure(image=image, high=1)

    def test_bounds_that_differ_are_stretched_pixel_by_pixel(self) -> None:
        # Codes of objects, colours and states, as grid worlds have them.
        image = np.resize(np.array([10, 0, 1, 5, 5, 2], np.uint8), (9, 9, 3))
        shown = observed(image=image, high=[10, 5, 2], obs="rgb")
        expected = np.resize([255, 0, 128, 128, 255, 255], (9, 9, 3)).transpose(2, 0, 1)
        np.testing.assert_array_equal(shown, expected)

    def test_a_pixel_of_one_value_becomes_0(self) -> None:
        low, high = np.full((9, 9), 5), np.full((9, 9), 9)
        high[0] = 5
        shown = observed(image=high.astype(np.uint8), low=low, high=high)[0]
        assert (shown[0] == 0).all()
        assert (shown[1:] == 255).all()

    def test_values_beyond_bounds_that_differ_are_refused(self) -> None:
        image, high = np.full((9, 9), 7, np.uint8), np.arange(81).reshape(9, 9) + 3
        assert "shows a value of 7 where its observation space declares 0..3: exp" in failure(
            image=image, high=high
        )
        short = failure(
            image=high.astype(np.uint8), high=high, step=lambda i: (i[1:], 1.0, False, False, {})
        )
        assert "an observation of shape (8, 9), but its space declares (9, 9)" in short

    def test_a_space_of_one_image_costs_a_line(self, caplog: pytest.LogCaptureFixture) -> None:
        checked.warn_once.cache_clear()
        image = np.full((9, 9), 7, np.uint8)
        assert (observed(image=image, low=7, high=7) == 7).all()
        assert caplog.text.count("holds one image only: its observations are not stretched") == 1

    def test_codes_under_bounds_of_0_to_255_cost_a_line(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        checked.warn_once.cache_clear()
        for _ in range(2):
            observed(image=np.full((9, 9), 10, np.uint8))
        assert caplog.text.count("no value above 15 of 255: nearly black") == 1
        caplog.clear()
        observed(image=np.zeros((9, 9), np.uint8))
        assert not caplog.text


class TestRefusedSpaces:
    @pytest.mark.parametrize(
        ("space", "part"),
        [
            (spaces.Box(0, 1, (9, 9), np.float32), r"Box float32 \(9, 9\): .*TransformObservation"),
            (spaces.Box(-5, 5, (9, 9, 3), np.int16), r"Box int16 \(9, 9, 3\): .*TransformObs"),
            (spaces.Box(-np.inf, np.inf, (4,)), r"Box float32 \(4,\): .*AddRenderObservation"),
            (spaces.MultiDiscrete(np.full((9, 9), 3)), r"MultiDiscrete \(9, 9\): expected"),
        ],
    )
    def test_other_observations_are_one_short_line(self, space: spaces.Space, part: str) -> None:
        env = Still()
        env.observation_space = space
        with pytest.raises(UserError, match=part) as refusal:
            PixelVecEnv([lambda: env], obs_size=9)
        assert len(str(refusal.value)) < 300


class TestFailures:
    def test_an_error_is_named_first_with_its_place(self) -> None:
        def step(image: Any) -> Any:
            raise ValueError("no such\n  level")

        line = failure(step=step)
        assert line.startswith('"Still" raised ValueError: no such level (')
        assert f"({__file__}, line {step.__code__.co_firstlineno + 1})" in line

    def test_an_exit_is_an_error_too(self) -> None:
        def step(image: Any) -> Any:
            raise SystemExit(0)

        assert '"Still" raised SystemExit: 0' in failure(step=step)

    @pytest.mark.parametrize("error", [GeneratorExit("closed"), Panic("in Rust"), MemoryError()])
    def test_whatever_is_raised_is_the_environments(self, error: BaseException) -> None:
        def raises(image: Any) -> Any:
            raise error

        name = type(error).__name__
        for options in ({"step": raises}, {"reset": raises}):
            assert failure(**options).startswith(f'"Still" raised {name}')
        with pytest.raises(UserError, match=f"cannot make an environment: {name}"):
            PixelVecEnv([lambda: raises(None)])

    def test_ctrl_c_is_no_failure(self) -> None:
        def step(image: Any) -> Any:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            observed(step=step)

    def test_an_environments_own_mistake_is_not_taken_for_the_older_gym(self) -> None:
        def step(image: Any) -> Any:
            x, y = (1, 2, 3)
            return x, y

        assert '"Still" raised ValueError: too many values to unpack' in failure(step=step)

    def test_an_observation_that_cannot_be_read_is_one_line(self) -> None:
        class Lazy:
            def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
                raise OSError("the server\nis away")

        assert "OSError: the server is away" in failure(step=lambda i: (Lazy(), 1.0, 0, 0, {}))
        assert '"Still" raised ValueError: ' in failure(step=lambda i: ([[1], [2, 3]], 1, 0, 0, {}))

    def test_what_makes_no_environment_is_refused(self) -> None:
        make: Any = lambda: None  # noqa: E731
        with pytest.raises(UserError, match=r"makes a NoneType: expected a gymnasium\.Env"):
            PixelVecEnv([make])

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"step": lambda i: (i, 1.0, False, {})}, "step() of \"Still\" returns 4 values"),
            ({"step": lambda i: None}, "returns NoneType: expected (observation, reward,"),
            ({"reset": lambda i: i}, 'reset() of "Still" returns ndarray: expected (observation'),
            ({"step": lambda i: (i, np.ones(2), False, False, {})}, "the reward array([1., 1.])"),
            ({"step": lambda i: (i, [1, 2], False, False, {})}, "the reward [1, 2]: expected one"),
            ({"step": lambda i: (i, None, False, False, {})}, "the reward None"),
            ({"step": lambda i: (i, float("nan"), False, False, {})}, "the reward nan"),
            ({"step": lambda i: (i, 10**400, False, False, {})}, "the reward 1000"),
            ({"step": lambda i: (i, 1e300, False, False, {})}, "the reward 1e+300"),
            ({"step": lambda i: (i, torch.ones(1).requires_grad_(), 0, 0, {})}, "the reward tens"),
            ({"step": lambda i: (i, 1.0, None, False, {})}, "the terminated None"),
            ({"step": lambda i: (i, 1.0, False, False, None)}, "the info None: expected a dict"),
            ({"step": lambda i: (None, 1.0, False, False, {})}, "an observation object ()"),
            ({"step": lambda i: (i / 100, 1.0, False, False, {})}, "an observation float64 (9, 9)"),
            ({"step": lambda i: (i[0], 1.0, False, False, {})}, "an observation uint8 (9,)"),
            ({"step": lambda i: (i[:0], 1.0, False, False, {})}, "an observation uint8 (0, 9)"),
            ({"reset": lambda i: (np.zeros((0, 0, 3), np.uint8), {})}, "uint8 (0, 0, 3)"),
        ],
    )  # fmt: skip
    def test_a_broken_interface_is_one_line(self, options: dict[str, Any], part: str) -> None:
        assert part in failure(**options)

    @pytest.mark.parametrize(
        "step",
        [
            lambda i: (i, np.array([1.0]), np.array(False), np.bool_(False), {}),
            lambda i: (i, np.float32(1), False, 0, {}),
            lambda i: [i.astype(np.float64), 1, False, False, {}],
        ],
    )
    def test_what_is_clear_is_taken(self, step: Callable[[Any], Any]) -> None:
        assert (observed(step=step) == 50).all()

    def test_gymnasiums_own_wrappers_do_not_hide_the_older_gym(self) -> None:
        gym.register("Old-v0", lambda: Still(step=lambda i: (i, 1.0, False, {})))
        try:
            venv = make_vec_env("Old-v0", 1, obs_size=9)
            venv.reset()
            with pytest.raises(EnvironmentFailure, match=r"must return \(observation, reward"):
                venv.step(np.zeros(1, int))
        finally:
            del gym.registry["Old-v0"]

    @pytest.mark.parametrize(
        ("code", "part"),
        [
            ("def f(:", "SyntaxError: invalid syntax (broken.py, line 1)"),
            ("import nothing_here", "No module named 'nothing_here' ("),
            ("1 / 0", "ZeroDivisionError: division by zero ("),
            ("raise SystemExit('no licence')", "SystemExit: no licence"),
            ("raise GeneratorExit", "GeneratorExit"),
        ],
    )
    def test_a_module_that_cannot_be_imported_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, part: str
    ) -> None:
        (tmp_path / "broken.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UserError) as caught:
            make_vec_env("broken:World-v0", 1)
        assert str(caught.value).startswith(
            'cannot import "broken" of environment "broken:World-v0"'
        )
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_one_that_cannot_be_made_is_one_line(self) -> None:
        def make() -> gym.Env:
            raise KeyError("level.png")

        gym.register("Unmade-v0", make)
        try:
            with pytest.raises(UserError, match=r'"Unmade-v0": KeyError: .*png'):
                make_vec_env("Unmade-v0", 1)
        finally:
            del gym.registry["Unmade-v0"]
        with pytest.raises(UserError, match="cannot make an environment: KeyError"):
            PixelVecEnv([make])

    @pytest.mark.parametrize("error", [OSError("stuck"), SystemExit("stuck")])
    def test_a_failure_to_close_is_no_error(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Stuck(Still):
            def close(self) -> None:
                raise error

        checked.warn_once.cache_clear()
        PixelVecEnv([Stuck] * 3, obs_size=9).close()
        # One line, however many environments fail to close.
        assert caplog.text.count(f'closing "Stuck" raised {type(error).__name__}: stuck') == 1

    def test_an_error_without_words_is_named(self) -> None:
        class Speechless(Exception):  # noqa: N818
            def __str__(self) -> str:
                raise RuntimeError

        assert describe_error(KeyError()) == "KeyError"
        assert describe_error(Speechless()) == "Speechless"
