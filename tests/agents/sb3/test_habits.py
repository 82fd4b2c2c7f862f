"""Habits of stable-baselines3's users: they work as there, or are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.dqn.policies import CnnPolicy, DQNPolicy
from torch import nn

from agents.dqn.agent import DQN
from agents.networks.policies import PixelActorCriticPolicy, PixelDQNPolicy
from agents.ppo.agent import PPO
from envs import PixelVecEnv
from envs.errors import UserError

SIZE = 40
LENET: dict[str, Any] = {
    "features_extractor_kwargs": {"encoder": "lenet", "encoder_options": {"features_dim": 16}}
}
OPTIONS: dict[Any, dict[str, Any]] = {
    PPO: {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    DQN: {"buffer_size": 200, "learning_starts": 8, "batch_size": 8, "train_freq": 4},
}
THEIRS: dict[Any, Any] = {PPO: SB3PPO, DQN: SB3DQN}
CNN: dict[Any, Any] = {PPO: ActorCriticCnnPolicy, DQN: CnnPolicy}
OURS: dict[Any, Any] = {PPO: PixelActorCriticPolicy, DQN: PixelDQNPolicy}
LEARNED = 32

both = pytest.mark.parametrize("algorithm", [PPO, DQN])


def image_env(size: int = SIZE) -> FakeImageEnv:
    """Random grey images, channels last, as stable-baselines3's own tests have them."""
    return FakeImageEnv(screen_height=size, screen_width=size, n_channels=1, discrete=True)


def images(n_envs: int = 2, size: int = SIZE) -> VecEnv:
    """Such images of several environments."""
    return make_vec_env(lambda: image_env(size), n_envs, seed=0)


def make(algorithm: Any, policy: Any = "CnnPolicy", env: Any = None, **options: Any) -> Any:
    settings = OPTIONS[PPO if algorithm in (PPO, SB3PPO) else DQN]
    options = {"policy_kwargs": LENET, "device": "cpu", "seed": 0, **settings, **options}
    return algorithm(policy, images() if env is None else env, **options)


def learn(model: Any) -> None:
    """Trains, and checks that the policy changed and is finite."""
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(LEARNED)
    after = list(model.policy.parameters())
    assert model.num_timesteps == LEARNED
    assert all(parameter.isfinite().all() for parameter in after)
    assert not all(map(torch.equal, before, after))


class Flipped(VecEnvWrapper):
    """Images upside down, as views with a negative stride, of games that are cut off."""

    def reset(self) -> Any:
        return self.venv.reset()[:, :, ::-1]

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            info["TimeLimit.truncated"] = True
            if "terminal_observation" in info:
                info["terminal_observation"] = info["terminal_observation"][:, ::-1]
        return observations[:, :, ::-1], rewards, dones, infos


class Flat(BaseFeaturesExtractor):
    """An extractor that takes floats, as anyone writes one."""

    largest: float = 0.0

    def __init__(self, space: Any, features_dim: int = 8) -> None:
        super().__init__(space, features_dim)
        self.linear = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, features_dim), nn.ReLU())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        assert observations.dtype == torch.float32
        Flat.largest = float(observations.max())
        return self.linear(observations)


# -- policies --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("normalize", "largest"), [(True, 1.0), (False, 255.0)])
@pytest.mark.parametrize("options", [{}, {"overlap": True}], ids=["", "overlap"])
def test_another_extractor_is_given_the_floats_of_stable_baselines3(
    algorithm: Any, normalize: bool, largest: float, options: dict[str, Any]
) -> None:
    policy = {"features_extractor_class": Flat, "normalize_images": normalize}
    make(algorithm, policy_kwargs=policy, **options).learn(LEARNED)
    assert 0.9 * largest < Flat.largest <= largest


class Viewing(BaseFeaturesExtractor):
    """An extractor that flattens by ``view``, which wants the layout of the shape."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 8)
        self.convolution = nn.Conv2d(3, 4, 8, 8)
        self.linear = nn.Linear(3 * SIZE * SIZE + 4 * 5 * 5, 8)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        maps = self.convolution(observations)
        flat = [images.view(len(images), -1) for images in (observations, maps)]
        return self.linear(torch.cat(flat, dim=1))


@both
def test_another_extractor_may_view_images_as_vectors(algorithm: Any) -> None:
    env = VecTransposeImage(VecFrameStack(images(), 3))
    learn(make(algorithm, env=env, policy_kwargs={"features_extractor_class": Viewing}))


@both
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stable_baselines3s_cnn_learns(algorithm: Any, precision: str) -> None:
    policy = {
        "features_extractor_class": NatureCNN,
        "features_extractor_kwargs": {"features_dim": 8},
        "precision": precision,
    }
    model = make(algorithm, policy_kwargs=policy).learn(LEARNED)
    assert model._n_updates


@both
def test_features_dim_is_the_encoders_option(algorithm: Any) -> None:
    policy = {"features_extractor_kwargs": {"features_dim": 24}}
    model = make(algorithm, policy_kwargs=policy).learn(LEARNED)
    assert next(m for m in model.policy.modules() if isinstance(m, nn.Linear)).out_features == 24


@both
@pytest.mark.parametrize("policy", ["class", "zip"])
def test_a_policy_of_stable_baselines3_acts_as_there(
    algorithm: Any, policy: str, tmp_path: Path
) -> None:
    theirs = make(THEIRS[algorithm], policy_kwargs=None).learn(LEARNED)
    if policy == "zip":
        theirs.save(tmp_path / "model")
        ours = algorithm.load(tmp_path / "model", env=images(), device="cpu")
    else:
        ours = make(algorithm, CNN[algorithm], policy_kwargs=None)
        ours.set_parameters(theirs.get_parameters())
    seen = np.random.default_rng(0).integers(0, 256, (64, 1, SIZE, SIZE)).astype(np.uint8)
    pixels = torch.as_tensor(seen)
    with torch.no_grad():
        if algorithm is PPO:
            pairs = [
                (m.policy.get_distribution(pixels).distribution.logits for m in (theirs, ours))
            ]
            pairs += [(m.policy.predict_values(pixels) for m in (theirs, ours))]
        else:
            pairs = [(m.q_net(pixels) for m in (theirs, ours))]
    for expected, found in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    ours.learn(LEARNED)
    ours.save(tmp_path / "again")
    algorithm.load(tmp_path / "again", device="cpu").predict(seen)


@both
def test_a_zip_with_an_encoder_of_ours_is_read(algorithm: Any, tmp_path: Path) -> None:
    from rlcnn.sb3 import EncoderExtractor

    policy = {"features_extractor_class": EncoderExtractor, **LENET}
    theirs = make(THEIRS[algorithm], policy_kwargs=policy)
    theirs.save(tmp_path / "model")
    ours = algorithm.load(tmp_path / "model", env=images(), device="cpu")
    for name, tensor in theirs.policy.state_dict().items():
        assert torch.equal(tensor, ours.policy.state_dict()[name])
    learn(ours)


@both
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("MlpPolicy", 'policy "MlpPolicy" is unknown: observations are images, so the policy is'),
        ("MultiInputPolicy", 'the policy is "CnnPolicy"'),
        (ActorCriticPolicy, 'policy ActorCriticPolicy does not fit: expected "CnnPolicy" or a sub'),
        (DQNPolicy, "policy DQNPolicy does not fit"),
        (None, "policy None does not fit"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(algorithm: Any, policy: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(algorithm, policy)


@pytest.mark.parametrize(("saves", "loads"), [(PPO, DQN), (DQN, PPO), (SB3PPO, DQN), (SB3DQN, PPO)])
def test_the_zip_of_another_algorithm_is_refused(saves: Any, loads: Any, tmp_path: Path) -> None:
    make(saves, policy_kwargs=None).save(tmp_path / "model")
    with pytest.raises(UserError, match="a file saved by another algorithm is loaded by it"):
        loads.load(tmp_path / "model", device="cpu")


@both
@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"precison": "bf16"}, 'policy_kwargs has no option "precison". Did you mean "precision"?'),
        ({"encoder": "impala"}, r'chosen by features_extractor_kwargs=dict\(encoder="impala"\)'),
        ({"features_extractor_kwargs": {"encodr": "impala"}}, 'Did you mean "encoder"?'),
        (
            {
                "features_extractor_class": NatureCNN,
                "features_extractor_kwargs": {"encoder": "impala"},
            },
            'has no option "encoder": NatureCNN takes features_dim, normalized_image',
        ),
        ({"features_extractor_class": "impala"}, "must be a subclass of BaseFeaturesExtractor"),
        ({"net_arch": "big"}, r"must be the widths of hidden layers, \[64, 64\]"),
        ({"net_arch": 64}, "must be the widths of hidden layers"),
        ({"net_arch": [0]}, "must be the widths of hidden layers"),
        ({"net_arch": {"pi": [8], "q": [8]}}, "must be the widths of hidden layers"),
        ({"net_arch": {"pi": 64, "vf": 64}}, "must be the widths of hidden layers"),
        ({"net_arch": [32, {"pi": [8], "vf": [8]}]}, "must be the widths of hidden layers"),
        ([1], "policy_kwargs must be a dict"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_a_policy_is_refused(algorithm: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        make(algorithm, policy_kwargs=kwargs)
    assert "\n" not in str(refusal.value)


@both
@pytest.mark.parametrize(
    "kwargs",
    [
        {"net_arch": [16, 8], "activation_fn": nn.ReLU},
        {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.9}},
        {"optimizer_kwargs": {"eps": 1e-4}},
    ],
    ids=str,
)
def test_the_arguments_of_stable_baselines3s_policies_serve(algorithm: Any, kwargs: Any) -> None:
    model = make(algorithm, policy_kwargs={**LENET, **kwargs})
    optimizer = model.policy.optimizer
    assert isinstance(optimizer, kwargs.get("optimizer_class", torch.optim.Adam))
    for name, value in kwargs.get("optimizer_kwargs", {}).items():
        assert optimizer.param_groups[0][name] == value
    if "net_arch" in kwargs:
        assert {16, 8} <= {m.out_features for m in model.policy.modules() if is_linear(m)}
    learn(model)


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


@pytest.mark.parametrize("net_arch", [{"pi": [16], "vf": [8, 4]}, [{"pi": [16]}]], ids=str)
@pytest.mark.filterwarnings("ignore:As shared layers")
def test_each_head_may_have_layers_of_its_own(net_arch: Any) -> None:
    model = make(PPO, policy_kwargs={**LENET, "net_arch": net_arch, "ortho_init": False})
    sizes = net_arch if isinstance(net_arch, dict) else net_arch[0]
    heads = {"pi": "policy_net", "vf": "value_net"}
    for name, widths in sizes.items():
        head = getattr(model.policy.mlp_extractor, heads[name])
        assert [layer.out_features for layer in head if is_linear(layer)] == widths
    learn(model)


def test_a_policy_with_heads_of_its_own_learns() -> None:
    class Heads(nn.Module):
        latent_dim_pi = latent_dim_vf = 4

        def __init__(self, features: int) -> None:
            super().__init__()
            self.actor, self.critic = nn.Linear(features, 4), nn.Linear(features, 4)

        def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.actor(features), self.critic(features)

    class Own(PixelActorCriticPolicy):
        def _build_mlp_extractor(self) -> None:
            self.mlp_extractor = Heads(self.features_dim)  # type: ignore[assignment]

    model = make(PPO, Own)
    assert model.policy.action_net.in_features == Heads.latent_dim_pi
    learn(model)


# -- predict ---------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("encoder", ["lenet", "nature"])
@pytest.mark.parametrize("frozen", [False, True])
def test_predict_takes_images_of_any_numbers(algorithm: Any, encoder: str, frozen: bool) -> None:
    kwargs = {"encoder": encoder, "frozen": frozen}
    model = make(algorithm, policy_kwargs={"features_extractor_kwargs": kwargs})
    seen = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 1)).astype(np.uint8)
    first = seen.transpose(0, 3, 1, 2)
    expected, _ = model.predict(seen, deterministic=True)
    assert expected.shape == (8,)
    kinds: list[Any] = [first, torch.as_tensor(first), first.tolist()]
    kinds += [seen.astype(kind) for kind in (np.float32, np.float64, np.int64)]
    for given in kinds:
        assert (model.predict(given, deterministic=True)[0] == expected).all()
    single, _ = model.predict(seen[0].astype(np.float32), deterministic=True)
    assert single.shape == ()
    assert single == expected[0]
    # Also where the policy is called by hand.
    pixels = torch.as_tensor(first)
    for given in (pixels, pixels.float()):
        assert model.policy._predict(given, deterministic=True).tolist() == expected.tolist()


@both
@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (np.zeros((3, 3), np.uint8), r"not of shape \(3, 3\)"),
        (np.zeros((1, 44, 44), np.uint8), r"not of shape \(1, 44, 44\)"),
        (np.full((1, SIZE, SIZE), -1.0), "pixels of 0 to 255, not of -1 to -1"),
        (np.full((1, SIZE, SIZE), np.nan), "not of nan to nan"),
        (np.full((1, SIZE, SIZE), 256), "not of 256 to 256"),
        (np.full((1, SIZE, SIZE), 0.5), "fractions of at most 1: multiply by 255"),
        (np.full((1, SIZE, SIZE), "a"), "pixels of 0 to 255, not <U1"),
        ({"image": np.zeros((1, SIZE, SIZE))}, "not a dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_predict_refuses_what_is_no_image(algorithm: Any, observation: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(algorithm).predict(observation)


@both
@pytest.mark.parametrize("frozen", [False, True])
def test_flipped_images_are_taken(algorithm: Any, frozen: bool) -> None:
    kwargs = {"encoder": "lenet", "frozen": frozen}
    env = Flipped(VecTransposeImage(images()))
    model = make(algorithm, env=env, policy_kwargs={"features_extractor_kwargs": kwargs})
    # Games of FakeImageEnv take 10 steps.
    model.learn(LEARNED)
    seen = env.reset()
    expected, _ = model.predict(seen.copy(), deterministic=True)
    assert (model.predict(seen, deterministic=True)[0] == expected).all()


@both
def test_floats_of_another_shape_are_not_taken_for_features(algorithm: Any) -> None:
    model, given = make(algorithm), torch.zeros(2, SIZE, SIZE, 1)
    call = model.policy.predict_values if algorithm is PPO else model.q_net
    with pytest.raises(ValueError, match=r"built for observations \(batch, \*\(1, 40, 40\)\)"):
        call(given)


# -- storage, environments and callbacks -----------------------------------------------------------


@both
def test_parameters_are_put_into_a_vector_and_taken_from_it(algorithm: Any) -> None:
    one, other = make(algorithm, seed=1), make(algorithm, seed=2)
    vector = one.policy.parameters_to_vector()
    other.policy.load_from_vector(vector)
    np.testing.assert_array_equal(other.policy.parameters_to_vector(), vector)
    parameters = zip(one.policy.parameters(), other.policy.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in parameters)


def test_storage_tells_its_size() -> None:
    rollout = make(PPO).learn(16).rollout_buffer
    assert rollout.size() == 8
    rollout.reset()
    assert rollout.size() == 0
    model = make(DQN, buffer_size=40)
    model.learn(16)
    assert (model.replay_buffer.size(), model.replay_buffer.full) == (8, False)
    model.learn(60, reset_num_timesteps=False)
    # A game that was cut off takes a place more.
    assert 18 <= model.replay_buffer.size() <= 20
    assert model.replay_buffer.buffer_size == 20
    assert model.replay_buffer.full


@both
@pytest.mark.parametrize("frozen", [False, True])
def test_stacks_that_are_stacked_once_more_are_refused(algorithm: Any, frozen: bool) -> None:
    kwargs = {"encoder": "squeezenet1_1:features.4", "frozen": frozen}
    vector = PixelVecEnv([image_env] * 2, obs_size=SIZE, frame_stack=1)
    with pytest.raises(UserError, match="give it frame_stack=N instead of stacking its"):
        make(
            algorithm,
            env=VecFrameStack(vector, 3),
            policy_kwargs={"features_extractor_kwargs": kwargs},
        ).learn(LEARNED)


def test_rewards_may_be_normalized_for_ppo() -> None:
    venv = VecNormalize(images(), norm_obs=False)
    make(PPO, env=venv).learn(LEARNED)
    assert venv.ret_rms.count > LEARNED / 2
    with pytest.raises(UserError, match="VecNormalize is not supported for DQN: the scale"):
        make(DQN, env=VecNormalize(images(), norm_obs=False))
    make(DQN, env=VecNormalize(images(), norm_obs=False, norm_reward=False)).learn(LEARNED)


@both
def test_normalized_images_are_refused_at_any_door(algorithm: Any) -> None:
    said = r"use VecNormalize\(norm_obs=False\) for the rewards alone"
    with pytest.raises(UserError, match=said):
        make(algorithm, env=VecNormalize(images()))
    model = make(algorithm)
    with pytest.raises(UserError, match=said):
        model.set_env(VecNormalize(images()))
    with pytest.raises(UserError, match="env is None: give an environment"):
        algorithm("CnnPolicy", None)


@both
def test_a_progress_bar_without_tqdm_says_what_to_install(
    algorithm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stable_baselines3.common.callbacks.tqdm", None)
    with pytest.raises(UserError, match="progress_bar=True needs tqdm: pip install tqdm"):
        make(algorithm).learn(LEARNED, progress_bar=True)


@both
def test_learning_for_no_step_is_possible(algorithm: Any) -> None:
    assert make(algorithm).learn(0).num_timesteps == 0


@both
def test_the_usual_callbacks_and_loggers_serve(algorithm: Any, tmp_path: Path) -> None:
    model = make(algorithm, stats_window_size=5, env=VecFrameStack(images(), 2))
    model.set_logger(configure(str(tmp_path), ["log", "csv", "json", "tensorboard"]))
    callbacks = [
        CheckpointCallback(8, str(tmp_path / "checkpoints"), save_replay_buffer=True),
        EvalCallback(
            VecFrameStack(images(1), 2),
            callback_on_new_best=StopTrainingOnRewardThreshold(1e9),
            eval_freq=8,
            n_eval_episodes=1,
            best_model_save_path=str(tmp_path / "best"),
            verbose=0,
        ),
        StopTrainingOnMaxEpisodes(1000),
    ]
    model.learn(LEARNED, callback=callbacks, log_interval=1)
    assert model.ep_info_buffer.maxlen == 5
    best = algorithm.load(tmp_path / "best" / "best_model", device="cpu")
    evaluate_policy(best, VecFrameStack(images(1), 2), n_eval_episodes=1)
    best.set_parameters(tmp_path / "best" / "best_model.zip")
    assert list((tmp_path / "checkpoints").glob("*.zip"))


class FirstLocals(BaseCallback):
    """Keeps the local variables that the first step offers to callbacks."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Any] = {}

    def _on_step(self) -> bool:
        self.first = self.first or dict(self.locals)
        return True


@both
def test_callbacks_find_the_usual_local_variables(algorithm: Any) -> None:
    found = {}
    for kind in (algorithm, THEIRS[algorithm]):
        callback = FirstLocals()
        policy = {"policy_kwargs": {"features_extractor_class": NatureCNN}}
        model = make(kind, **policy).learn(LEARNED, callback=callback)
        found[kind] = callback.first
        assert found[kind]["self"] is model
        assert found[kind]["env"] is model.env
    ours, theirs = found[algorithm], found[THEIRS[algorithm]]
    # What acting and storing there compute on the way.
    assert set(theirs) - set(ours) <= {"obs_tensor", "clipped_actions", "buffer_actions"}
    for name in ("actions", "new_obs", "rewards", "dones", "values", "log_probs"):
        assert np.shape(ours.get(name)) == np.shape(theirs.get(name)), name
