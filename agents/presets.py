"""Presets: defaults of all options of a training, with the source of every value.

Steps are agent steps: Dopamine and dqn_zoo count 4 frames for each. Epsilon falls linearly
everywhere. "no limit" stands where a source does not clip gradients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agents.config import Preset, TrainConfig
from agents.dqn.config import DQNConfig
from agents.hyperparameters import Algorithm
from agents.ppo.config import PPOConfig
from envs.errors import UserError
from rlcnn.config.fields import check_value

_NO_LIMIT = 1e9

# rl-baselines3-zoo, hyperparams/ppo.yml and dqn.yml, section "atari": the fields' own defaults.
ZOO = TrainConfig(preset="zoo")

# Chosen on two cores without a GPU, by runs on Pong; docs/results/pong.md shows what it gives.
FAST = replace(
    ZOO,
    preset="fast",
    total_steps=2_000_000,
    num_envs=32,
    # Against the zoo's: short rollouts of many environments, so that as many transitions come
    # from newer policies; four times the learning rate, annealed over the shorter run; and an
    # entropy bonus that is annealed with it: kept, it stops the policy from deciding before the
    # run ends, and a smaller one from the start lets it settle for too little.
    ppo=replace(
        ZOO.ppo,
        learning_rate=1e-3,
        n_steps=32,
        clip_range_schedule="constant",
        ent_coef_schedule="linear",
    ),
    dqn=replace(ZOO.dqn, learning_starts=20_000),
)

# Dopamine, dopamine/jax/agents/dqn/configs/dqn.gin.
DQN_DOPAMINE = replace(
    ZOO,
    preset="dqn-dopamine",
    algo="dqn",
    num_envs=1,
    protocol="sticky",
    dqn=DQNConfig(
        learning_rate=6.25e-5,
        adam_eps=1.5e-4,
        loss="mse",
        max_grad_norm=_NO_LIMIT,
        buffer_size=1_000_000,
        learning_starts=20_000,
        target_update_interval=8_000,
        exploration_steps=250_000,
        exploration_final_eps=0.01,
    ),
)

# dqn_zoo, dqn_zoo/double_q/run_atari.py, but for the optimiser: RMSProp there, here Adam as in
# Dopamine's DQN.
DOUBLE_DQN = replace(
    ZOO,
    preset="double-dqn",
    algo="dqn",
    num_envs=1,
    dqn=DQNConfig(
        double=True,
        learning_rate=6.25e-5,  # Dopamine's DQN
        adam_eps=1.5e-4,  # Dopamine's DQN
        max_grad_norm=_NO_LIMIT,
        buffer_size=1_000_000,
        learning_starts=50_000,
        target_update_interval=30_000,
        exploration_steps=250_000,
        exploration_final_eps=0.01,
    ),
)

# dqn_zoo, dqn_zoo/rainbow/run_atari.py. Its last layers have no biases, and its noise is cut off
# at 2 standard deviations; here neither is so.
RAINBOW = replace(
    ZOO,
    preset="rainbow",
    algo="dqn",
    num_envs=1,
    dqn=DQNConfig(
        head="dueling-c51",  # 51 atoms from -10 to 10
        double=True,
        noisy=True,
        sigma0=0.1,
        n_steps=3,
        prioritized=True,
        priority_alpha=0.5,
        priority_beta_initial=0.4,
        priority_beta_final=1.0,
        priority_uniform_share=1e-3,
        learning_rate=6.25e-5,
        adam_eps=0.005 / 32,
        max_grad_norm=10,
        buffer_size=1_000_000,
        learning_starts=20_000,
        target_update_interval=8_000,
        exploration_initial_eps=0.0,
        exploration_final_eps=0.0,
    ),
)

# dqn_zoo, dqn_zoo/qrdqn/run_atari.py.
QR_DQN = replace(
    ZOO,
    preset="qr-dqn",
    algo="dqn",
    num_envs=1,
    dqn=DQNConfig(
        head="qr",
        quantiles=201,
        learning_rate=5e-5,
        adam_eps=0.01 / 32,
        max_grad_norm=10,
        buffer_size=1_000_000,
        learning_starts=50_000,
        target_update_interval=10_000,
        exploration_steps=250_000,
        exploration_final_eps=0.01,
    ),
)

# Dopamine, dopamine/jax/agents/implicit_quantile/configs/implicit_quantile.gin.
IQN = replace(
    ZOO,
    preset="iqn",
    algo="dqn",
    num_envs=1,
    protocol="sticky",
    dqn=DQNConfig(
        head="iqn",
        iqn_samples=64,
        iqn_target_samples=64,
        iqn_acting_samples=32,
        n_steps=3,
        learning_rate=5e-5,
        adam_eps=3.125e-4,
        max_grad_norm=_NO_LIMIT,
        buffer_size=1_000_000,
        learning_starts=20_000,
        target_update_interval=8_000,
        exploration_steps=250_000,
        exploration_final_eps=0.01,
    ),
)

# google-research, munchausen_rl/configs/atari.gin, of Vieillard et al. 2020.
M_IQN = replace(
    IQN,
    preset="m-iqn",
    dqn=replace(
        IQN.dqn,
        n_steps=1,
        munchausen=True,
        munchausen_alpha=0.9,
        munchausen_tau=0.03,
        munchausen_clip=-1.0,
    ),
)

# VIPTankz/BeyondTheRainbowICML, main.py and Agent.py, of Clark et al. 2025. Its bonus comes from
# the online network, here from the target network, as in Vieillard et al. 2020. Its epsilon falls
# exponentially, to 0.37 in 2,000,000 steps; here linearly, to 0.01. It draws each batch from the
# replay of one environment, here from all. It plays with the game's own actions; the sticky
# protocol has all 18. It acts by the greatest advantage, which is also the greatest value.
BTR = replace(
    ZOO,
    preset="btr",
    algo="dqn",
    num_envs=64,
    protocol="sticky",
    encoder="impala",
    encoder_options={
        "width": 2,
        "pooling": "adaptive_max",
        "spectral_norm": "residual",
        "features_dim": 0,
    },
    dqn=DQNConfig(
        head="dueling-iqn",
        iqn_samples=8,
        iqn_target_samples=8,
        iqn_acting_samples=8,
        first_cosine=0,
        noisy=True,
        sigma0=0.5,
        munchausen=True,
        munchausen_alpha=0.9,
        munchausen_tau=0.03,
        munchausen_clip=-1.0,
        n_steps=3,
        gamma=0.997,
        prioritized=True,
        priority_alpha=0.2,
        priority_beta_initial=0.4,
        priority_beta_final=1.0,
        priority_uniform_share=0.0,
        learning_rate=1e-4,
        adam_eps=0.005 / 256,
        max_grad_norm=10,
        batch_size=256,
        train_freq=64,
        gradient_steps=1,
        buffer_size=1_048_576,
        learning_starts=200_000,
        target_update_interval=500 * 64,
        exploration_steps=2_000_000,
        exploration_final_eps=0.01,
        exploration_end=0.5,
    ),
)

# mttga/purejaxql, config/alg/pqn_atari.yaml, of Gallici et al. 2024: the fields' own defaults. With
# fewer environments a rollout would have fewer minibatches.
PQN = replace(ZOO, preset="pqn", algo="pqn", num_envs=128)

# rl_games, rl_games/configs/atari/ppo_pong_envpool.yaml; envpool clips rewards and has the classic
# rules. There the value loss is halved before its coefficient; convolutions start as torch makes
# them, the linear layer with gain sqrt(2); advantages are normalised over the whole rollout; the
# rate is adapted after each epoch; and the statistics of pixels change in the first epoch of an
# update. Here all weights start orthogonal, with ELU's gain; advantages are normalised in each
# minibatch; the rate and the statistics of pixels change after an update.
RL_GAMES_PONG = replace(
    ZOO,
    preset="rl-games-pong",
    total_steps=500 * 64 * 128,  # max_epochs
    num_envs=64,  # num_actors
    encoder_options={"activation": "elu", "input_norm": "running"},  # normalize_input
    ppo=PPOConfig(
        learning_rate=3e-4,
        learning_rate_schedule="adaptive",  # lr_schedule
        kl_threshold=0.01,
        adam_eps=1e-8,  # rl_games/algos_torch/a2c_discrete.py
        n_steps=128,  # horizon_length
        batch_size=2_048,
        n_epochs=4,  # mini_epochs
        gamma=0.99,
        gae_lambda=0.95,  # tau
        clip_range=0.2,  # e_clip
        clip_range_schedule="constant",
        ent_coef=0.01,
        vf_coef=2 / 2,  # critic_coef
        normalize_value=True,
        max_grad_norm=1.0,
    ),
)

# rl_games, rl_games/configs/atari/ppo_breakout_envpool.yaml, with the differences of its Pong; its
# weights are orthogonal with gain sqrt(2), as here.
RL_GAMES_BREAKOUT = replace(
    RL_GAMES_PONG,
    preset="rl-games-breakout",
    total_steps=1_500 * 64 * 128,
    encoder_options={},
    ppo=replace(
        RL_GAMES_PONG.ppo,
        learning_rate=8e-4,
        learning_rate_schedule="constant",
        kl_threshold=None,
        batch_size=1_024,
        n_epochs=2,
        gamma=0.999,
        vf_coef=1 / 2,
    ),
)

# By preset, then by algorithm; the first algorithm is the preset's default.
PRESETS: dict[Preset, dict[Algorithm, TrainConfig]] = {
    # Single-environment DQN is the literature's; several in lockstep keep the cores busy.
    "fast": {
        "ppo": FAST,
        "dqn": replace(FAST, algo="dqn", num_envs=8),
        "pqn": replace(FAST, algo="pqn"),
    },
    "zoo": {
        "ppo": ZOO,
        "dqn": replace(ZOO, algo="dqn", num_envs=1),
        "pqn": replace(PQN, preset="zoo"),
    },
    **{
        config.preset: {config.algo: config}
        for config in (
            *(DQN_DOPAMINE, DOUBLE_DQN, RAINBOW, QR_DQN, IQN, M_IQN, BTR, PQN),
            *(RL_GAMES_PONG, RL_GAMES_BREAKOUT),
        )
    },
}


def preset_config(preset: str = "fast", algo: str | None = None) -> TrainConfig:
    """All defaults of a preset, for an algorithm or for the one that it chooses.

    Raises:
        UserError: there is no such preset or algorithm, or the preset is for another algorithm.
    """
    check_value("preset", preset, Preset)
    configs: dict[Any, TrainConfig] = PRESETS[preset]  # type: ignore[index]
    own = next(iter(configs))
    if algo is None:
        return configs[own]
    check_value("algo", algo, Algorithm)
    if algo not in configs:
        any_algorithm = " or ".join(name for name, each in PRESETS.items() if len(each) > 1)
        raise UserError(
            f"--preset {preset} is for --algo {own}: leave out --algo {algo}, or choose --preset"
            f" {any_algorithm}"
        )
    return configs[algo]
