"""Recipes by the source that published them: all defaults of a pretraining."""

from __future__ import annotations

from dataclasses import replace

from rlcnn.config.fields import check_value
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.supervised.config import PretrainConfig, RecipeName

# What needs no download, and the fields' own defaults. Of no publication: AdamW at its usual rate,
# annealed.
FRAMES = PretrainConfig(recipe="frames")

# LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition",
# section III. Published: 0.95% error on MNIST without distortions.
LENET5_1998 = PretrainConfig(
    recipe="lenet5-1998",
    data="mnist",
    encoder="lenet",
    encoder_options={"variant": "lecun1998"},  # section II.B: LeNet-5 itself, with its sparse C3
    epochs=20,  # section III.B: 20 passes
    # The paper's own: one image at a time, by the stochastic diagonal Levenberg-Marquardt method,
    # global rates falling from 5e-4 to 1e-5, and radial basis functions as outputs. In its place a
    # linear layer, cross-entropy and plain SGD on small batches; these four values are ours.
    batch_size=32,
    optimizer="sgd",
    learning_rate=0.02,
    momentum=0.9,
    weight_decay=5e-4,
    decay_all=True,
    schedule="cosine",  # the paper's rates fall in five steps, to a fiftieth
    augment=AugmentConfig(pad=2),  # section III.A: 28x28 in the middle of 32x32
)

# Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural
# networks". Published: 40.7% top-1 and 18.2% top-5 error of one such network on ImageNet. Not
# taken over: the shifts along the colours' principal components (section 4.1), worth 1% there, and
# its start from N(0, 0.01), for which see the encoder.
ALEXNET_2012 = PretrainConfig(
    recipe="alexnet-2012",
    data="folder:imagenet",
    encoder="alexnet_2012",  # dropout 0.5 in its two large layers is the encoder's own
    epochs=90,  # section 5: "roughly 90 cycles"
    batch_size=128,  # section 5
    optimizer="sgd",  # section 5
    learning_rate=0.01,  # section 5
    momentum=0.9,  # section 5
    weight_decay=5e-4,  # section 5
    decay_all=True,
    schedule="steps",
    # Section 5: thrice, when the error stopped falling. The shares are ours.
    milestones=(1 / 3, 2 / 3, 8 / 9),
    step_factor=0.1,  # section 5: divided by 10
    augment=AugmentConfig(
        resize=256,  # section 2: the shorter side
        crop=227,  # section 4.1 says 224, but its 55x55 maps come of 227
        flip=True,  # section 4.1
    ),
)

# He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", section 4.2.
# Published: 8.75% error on CIFAR-10 at 20 layers.
RESNET_CIFAR_2016 = PretrainConfig(
    recipe="resnet-cifar-2016",
    data="cifar10",
    encoder="cifar_resnet",
    encoder_options={"depth": 20},
    epochs=164,  # 64,000 updates of 128 out of 50,000 images
    batch_size=128,
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    decay_all=True,
    schedule="steps",
    milestones=(0.5, 0.75),  # after 32,000 and 48,000 updates
    step_factor=0.1,
    augment=AugmentConfig(
        crop=32,
        crop_padding=4,
        edge="mean",  # zeros, after the mean has been taken from every pixel
        flip=True,
    ),
)

# Page 2018, "How to train your ResNet", parts 1 to 4 (myrtle.ai): its entry to DAWNBench, 94% on
# CIFAR-10 in 24 epochs, 79 s on one V100.
RESNET9_2018 = PretrainConfig(
    recipe="resnet9-2018",
    data="cifar10",
    encoder="resnet9",
    epochs=24,
    batch_size=512,
    optimizer="sgd",
    learning_rate=0.4,  # of the mean loss over a batch; the source sums it and divides the rate
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,  # likewise
    decay_all=True,
    warmup_epochs=5.0,
    schedule="linear",  # to 0 at the end
    augment=AugmentConfig(crop=32, crop_padding=4, edge="reflect", flip=True, cutout=8),
)

# Schwarzer et al. 2021, "Pretraining representations for data-efficient reinforcement learning"
# (mila-iqia/SGI, scripts/config.yaml and scripts/experiments/sgim_pretrain.sh), without its
# goal-conditioned learning and its gradient clipping, and with NatureCNN in place of its residual
# network. It learns from a million frames of a DQN's replay; here games are played at random, or by
# --players.
SGI_2021 = PretrainConfig(
    recipe="sgi-2021",
    objectives=("spr", "1", "inverse", "1"),
    jumps=5,
    target_decay=0.99,  # momentum_tau 0.01
    epochs=20,
    batch_size=256,
    optimizer="adamw",  # Adam, as nothing decays
    learning_rate=1e-4,
    weight_decay=0.0,
    schedule="constant",
)

# Stooke, Lee, Abbeel & Laskin 2021, "Decoupling representation learning from reinforcement
# learning" (astooke/rlpyt, rlpyt/ul/experiments/ul_for_rl/configs/atari/atari_atc.py), without its
# gradient clipping. It shifts one image in ten; here DrQ's augmentation changes all.
ATC_2021 = PretrainConfig(
    recipe="atc-2021",
    objectives=("contrastive",),
    contrast_steps=3,  # delta_T
    target_decay=0.99,  # target_update_tau 0.01
    epochs=100,  # 20,000 updates of 512 from 100,000 frames
    batch_size=512,
    optimizer="adamw",  # Adam, as nothing decays
    learning_rate=1e-3,
    weight_decay=0.0,
    warmup_epochs=5.0,  # 1,000 updates
    schedule="cosine",
)

DEFAULT_RECIPE: RecipeName = "frames"

RECIPES: dict[str, PretrainConfig] = {
    recipe.recipe: recipe
    for recipe in (
        FRAMES,
        LENET5_1998,
        ALEXNET_2012,
        RESNET_CIFAR_2016,
        RESNET9_2018,
        SGI_2021,
        ATC_2021,
    )
}


def recipe_config(recipe: RecipeName, encoder: str | None = None) -> PretrainConfig:
    """All defaults of a recipe; another encoder than the recipe's has its own options.

    Raises:
        UserError: There is no such recipe.
    """
    check_value("recipe", recipe, RecipeName)
    config = RECIPES[recipe]
    if encoder is None or encoder == config.encoder:
        return config
    return replace(config, encoder=encoder, encoder_options={})
