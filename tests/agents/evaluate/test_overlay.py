"""Films with an agent's decisions beside the game."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from rich.console import Console
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from support.image_agents import SIZE, images
from support.tiny_agents import TINY, as_dqn

from agents.config import PQNConfig, TrainConfig
from agents.dqn.agent import DQN
from agents.evaluate.evaluation import EvaluationPolicy, film_agent
from agents.evaluate.films import Filming
from agents.evaluate.overlay import DecisionOverlay, action_scores
from agents.networks.head_options import HeadName
from agents.ppo.agent import PPO
from agents.pqn.agent import PQN
from agents.train.builder import build_agent, load_agent, make_train_env
from agents.train.training import train
from envs.protocol import PROTOCOLS
from rlcnn.visualize.saliency import gradient, integrated_gradients, takes_pixels_as_floats

SIGNALS = replace(TINY, env="support.games:Signals-v0", seed=3)
CONFIGS: dict[str, TrainConfig] = {
    "ppo": SIGNALS,
    "pqn": replace(SIGNALS, algo="pqn", pqn=PQNConfig(n_steps=8, batch_size=8)),
    **{
        head: as_dqn(SIGNALS, head=head, noisy=True, buffer_size=100, learning_starts=8)
        for head in get_args(HeadName)
    },
    "bf16": replace(SIGNALS, precision="bf16"),
    "frozen": replace(SIGNALS, mode="frozen"),
}


def make_agent(config: TrainConfig) -> Any:
    venv = make_train_env(config)
    try:
        return build_agent(config, venv)
    finally:
        venv.close()


def read_film(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What the file says of itself, and its pictures (n, height, width, 3)."""
    frames = imageio_ffmpeg.read_frames(str(path))
    about = next(frames)
    width, height = about["size"]
    return about, np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in frames])


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_of_every_agent_are_those_it_acts_by_and_reach_the_pixels(name: str) -> None:
    agent = make_agent(CONFIGS[name])
    network = agent.policy
    before = [(part, getattr(part, "precision", None)) for part in network.modules()]
    observations = np.random.default_rng(0).integers(256, size=(6, 2, 36, 36), dtype=np.uint8)
    pixels = torch.as_tensor(observations)
    with action_scores(agent) as scores_of:
        scores, values = scores_of(pixels)
        chosen = scores.argmax(1)
        slopes = gradient(lambda p: scores_of(p).scores, pixels, chosen)
    greedy, _ = agent.predict(observations, deterministic=True)
    # In bfloat16 close scores may change places.
    if name != "bf16":
        assert chosen.tolist() == greedy.tolist()
    assert scores.shape == (6, 4)
    assert values.shape == (6,)
    assert slopes.flatten(1).any(1).all()
    assert before == [(part, getattr(part, "precision", None)) for part in network.modules()]
    assert all(parameter.grad is None for parameter in network.parameters())


class ThreePixels(BaseFeaturesExtractor):
    """Features that depend on three pixels alone."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, features_dim=3)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations[:, 0, [3, 20, 30], [5, 20, 7]]


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (PPO, {"n_steps": 8, "batch_size": 16}),
        (DQN, {"buffer_size": 100}),
        (PQN, {"n_steps": 8, "batch_size": 16}),
    ],
)
@pytest.mark.parametrize("method", [gradient, integrated_gradients])
def test_attributions_lie_on_the_pixels_that_decide(
    algorithm: Any, options: dict[str, Any], method: Callable[..., torch.Tensor]
) -> None:
    policy = {"features_extractor_class": ThreePixels, "net_arch": []}
    agent = algorithm("CnnPolicy", images(), policy_kwargs=policy, device="cpu", seed=0, **options)
    pixels = torch.full((2, 1, SIZE, SIZE), 100, dtype=torch.uint8)
    with action_scores(agent) as scores_of:
        found = method(lambda p: scores_of(p).scores, pixels, torch.tensor([0, 1]))
    for attributions in found:
        assert attributions[0].nonzero().tolist() == [[3, 5], [20, 20], [30, 7]]


@pytest.mark.parametrize("name", ["ppo", "pqn", "dueling-iqn", "bf16", "frozen"])
def test_an_overlay_changes_nothing_of_the_game(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    agent = make_agent(config)
    plain = film_agent(agent, config, tmp_path / "plain.mp4")
    state = torch.get_rng_state()
    film = film_agent(agent, config, tmp_path / "overlay.mp4", overlay=True)
    assert replace(film, path=plain.path) == plain
    assert torch.equal(torch.get_rng_state(), state)
    about, pictures = read_film(film.path)
    # One for the first observation and one for each of 8 steps, at the game's own rate.
    assert (len(pictures), about["fps"], film.frames) == (9, 30, 9)
    assert about["size"][0] > about["size"][1] == 540


@pytest.mark.parametrize(("obs", "frame_skip"), [("grey", 4), ("rgb", 3)])
def test_films_of_atari_have_a_picture_of_every_emulator_frame(
    obs: Any, frame_skip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(PROTOCOLS["classic"], max_episode_steps=8, noop_max=0, frame_skip=frame_skip)
    monkeypatch.setitem(PROTOCOLS, "short", short)
    config = replace(TINY, env="ALE/SpaceInvaders-v5", protocol="short", obs=obs, env_workers=2)
    film = film_agent(make_agent(config), config, tmp_path / "film.mp4", overlay=True)
    about, pictures = read_film(film.path)
    assert about["fps"] == 60
    # The first picture, one no-op of FIRE, and the frames of 8 steps.
    assert len(pictures) == film.frames == 2 + frame_skip * 8
    # Panels change at decisions, and the game at every picture.
    panels = pictures[2:, :, 380:].reshape(8, frame_skip, -1).astype(int)
    assert np.abs(np.diff(panels, axis=1)).mean() < 0.5
    assert np.abs(np.diff(panels[:, 0], axis=0)).max(axis=1).min() > 40


class Recorder:
    """A policy that takes fixed actions."""

    def __init__(self, actions: list[int]) -> None:
        self.actions = iter(actions)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        return np.array([next(self.actions)])


def test_the_chosen_action_is_the_one_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(SIGNALS)
    seen: list[Any] = []
    overlay = DecisionOverlay(agent, 2, "title", Recorder([2, 1]))
    overlay.begin([f"A{number}" for number in range(4)])
    monkeypatch.setattr(overlay._panels, "decide", lambda view, value: seen.append((view, value)))
    stack = np.random.default_rng(0).integers(256, size=(1, 2, 36, 36), dtype=np.uint8)
    assert [overlay(stack)[0], overlay(stack)[0]] == [2, 1]
    for (view, value), action in zip(seen, (2, 1), strict=True):
        assert view.action == action
        assert view.explained == f"log p(A{action})"
        np.testing.assert_array_equal(view.frames, stack[0])
        probabilities = agent.policy.get_distribution(torch.as_tensor(stack)).distribution.probs
        np.testing.assert_allclose(view.scores, probabilities[0].detach(), rtol=1e-5)
        np.testing.assert_allclose(
            value, agent.policy.predict_values(torch.as_tensor(stack)).item(), rtol=1e-5
        )
    with takes_pixels_as_floats(agent.policy):
        expected = gradient(
            lambda p: agent.policy.logits_and_values(p)[0].log_softmax(1),
            torch.as_tensor(stack),
            torch.tensor([2]),
        )
    np.testing.assert_allclose(seen[0][0].saliency, expected[0].abs(), rtol=1e-4, atol=1e-9)
    assert not np.allclose(seen[0][0].saliency, seen[1][0].saliency)


def test_films_during_a_training_have_the_overlay_if_asked(tmp_path: Path) -> None:
    sizes = []
    for overlay in (False, True):
        config = replace(SIGNALS, video_overlay=overlay)
        agent = make_agent(config)
        film = Filming(config, Console(file=io.StringIO())).film(
            agent, tmp_path / f"{overlay}.mp4", 0, lambda: None
        )
        assert film is not None
        sizes.append(read_film(film.path)[0]["size"])
    assert sizes[0] == (432, 432)
    assert sizes[1][0] > 900


def test_policies_keep_their_own_chance_beside_an_overlay() -> None:
    agent = make_agent(SIGNALS)
    stack = np.random.default_rng(0).integers(256, size=(1, 2, 36, 36), dtype=np.uint8)
    plain = EvaluationPolicy(agent, seed=5)
    overlay = DecisionOverlay(agent, 2, "", EvaluationPolicy(agent, seed=5))
    overlay.begin(["a", "b", "c", "d"])
    assert [int(plain(stack)[0]) for _ in range(20)] == [int(overlay(stack)[0]) for _ in range(20)]


@pytest.mark.parametrize("name", ["ppo", "dueling-iqn"])
def test_films_with_an_overlay_change_nothing_of_a_training(name: str, tmp_path: Path) -> None:
    policies = []
    for overlay in (False, True):
        config = replace(
            CONFIGS[name], eval_episodes=0, video_every=16, overlap="on", video_overlay=overlay
        )
        run = train(config, tmp_path / str(overlay), console=Console(file=io.StringIO()))
        assert len(list((run / "videos").iterdir())) == 2
        policies.append(load_agent(run).policy.state_dict())
    for tensor, other in zip(*(policy.values() for policy in policies), strict=True):
        assert torch.equal(tensor, other)
