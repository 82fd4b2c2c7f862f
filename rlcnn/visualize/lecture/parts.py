"""The parts of the lecture in their order: a text, and the commands that make the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlcnn.data.names import ATARI
from rlcnn.runs.directory import RunDirectory
from rlcnn.visualize.gallery.options import command_line
from rlcnn.visualize.lecture.options import LectureConfig, PartName

NEEDS = {
    "mnist": "--mnist DIR, a directory with the four files of MNIST",
    "cifar10": "--cifar10 DIR, a directory with torchvision's cifar-10-batches-py, or an image"
    " folder with train/<class> and test/<class>",
    "data": "--data folder:DIR of photographs, with --labels CSV or a folder for each class",
    "weights": "--weights FILE, ImageNet weights of --encoder, or --weights imagenet",
    "agent": "--agent RUN_DIR, which python scripts/train_agent.py --run-dir RUN_DIR makes",
}
"""Options with data, and what to give."""

# Networks whose layers of medium depth have names of their own; of others the last maps are drawn.
_MIDDLE = {"squeezenet1_0": "features.6", "resnet18": "layer2", "vgg16": "features.16"}

_NETWORKS = (
    ("alexnet_2012", "--shape", "3", "227", "227", "--classes", "1000"),
    ("alexnet:logits",),
    ("zfnet", "--shape", "3", "224", "224", "--classes", "1000"),
    ("vgg16:logits",),
    ("googlenet:logits",),
    ("resnet50:logits",),
    ("densenet121:logits",),
)


@dataclass(frozen=True)
class Step:
    """A command line of a script."""

    script: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command, to be copied."""
        return command_line(f"{self.script}.py", self.arguments)


Steps = Callable[[LectureConfig], list[Step]]


@dataclass(frozen=True)
class Part:
    """A part of the lecture.

    Attributes:
        title: its heading.
        text: what its figures show.
        minutes: about how long it takes on two cores.
        needs: options that it needs, of :data:`NEEDS`.
        steps: its commands.
    """

    title: str
    text: str
    minutes: float
    needs: tuple[str, ...]
    steps: Steps

    def missing(self, config: LectureConfig) -> list[str]:
        """What to give to make it; empty if all is given."""
        return [NEEDS[name] for name in self.needs if getattr(config, name) is None]


def _describe(*arguments: str) -> Step:
    return Step("describe_encoder", ("--encoder", *arguments))


def _counting(config: LectureConfig) -> list[Step]:
    return [_describe("lenet", "--shape", "1", "32", "32", "--classes", "10")]


def _networks(config: LectureConfig) -> list[Step]:
    charts = _pictures(config, "networks", "charts")
    return [*(_describe(*arguments) for arguments in _NETWORKS), charts]


def _lenet(config: LectureConfig) -> list[Step]:
    run = _runs(config) / "lenet"
    return [
        _train(config, run, 5, None, "--recipe", "lenet5-1998", "--data-dir", str(config.mnist)),
        _pictures(config, "lenet", "filters", "errors", "--run", str(run)),
        _pictures(config, "lenet", "curves", "--trainings", str(run)),
    ]


def _filters(config: LectureConfig) -> list[Step]:
    return [_pictures(config, "filters", "filters", *_network(config))]


def _maps(config: LectureConfig) -> list[Step]:
    layer = _MIDDLE.get(config.encoder)
    shown = ("--layer", layer) if layer else ()
    return [
        _pictures(config, "maps", "activations", *_network(config), *_photographs(config), *shown)
    ]


def _predictions(config: LectureConfig) -> list[Step]:
    return [_pictures(config, "predictions", "errors", *_network(config), *_photographs(config))]


def _saliency(config: LectureConfig) -> list[Step]:
    return [_pictures(config, "saliency", "saliency", *_network(config), *_photographs(config))]


def _depth(config: LectureConfig) -> list[Step]:
    steps, runs = [], []
    for depth in ("20", "56"):
        for shortcut in ("none", "identity"):
            options = ("--encoder-options", "depth", depth, "shortcut", shortcut)
            runs.append(_runs(config) / f"cifar-{depth}-{shortcut}")
            recipe = ("--recipe", "resnet-cifar-2016", "--data-dir", str(config.cifar10), *options)
            steps.append(_train(config, runs[-1], 15, 10_000, *recipe))
    return [*steps, _pictures(config, "depth", "curves", "--trainings", *map(str, runs))]


def _neighbours(config: LectureConfig) -> list[Step]:
    options = ("--encoder-options", "resize", "64", "pooling", "mean")
    network = (*_network(config), *options, "--data", "cifar10", "--data-dir", str(config.cifar10))
    return [_pictures(config, "neighbours", "neighbours", "embedding", *network)]


def _transfer(config: LectureConfig) -> list[Step]:
    data = ("--data", "cifar10", "--data-dir", str(config.cifar10))
    network = ("--encoder", config.encoder, "--encoder-options", "resize", "64", "pooling", "mean")
    weights = ("--weights", str(config.weights))
    epochs, images = config.epochs or 10, config.train_size or 2_000
    how = (*data, *network, "--augment.flip", "--batch-size", "64", "--eval-every", str(epochs))
    runs = [_runs(config) / name for name in ("scratch", "finetuned")]
    sizes = ("--train-size", str(images), "--test-size", str(images))
    methods = ("--methods", "svm", "--classifiers", *map(str, runs), *_device(config))
    return [
        _train(config, runs[0], 10, 2_000, *how),
        _train(config, runs[1], 10, 2_000, *how, *weights, "--mode", "finetune"),
        Step("probe_encoder", (*data, *network, *weights, *sizes, *methods)),
    ]


def _style(config: LectureConfig) -> list[Step]:
    frames = ("obs", "rgb", "obs-size", "128", "frame-stack", "1", "labels", "game")
    few = ("train-frames", "100", "test-frames", "100")
    pairs = zip((*frames, *few)[::2], (*frames, *few)[1::2], strict=True)
    options = [word for name, value in pairs for word in (f"--frames.{name}", value)]
    pictures = ("--style.content", "30", "--style.style", "130", "--style.steps", "100")
    data = ("--data", f"{ATARI}Breakout,Pong", *_frames(config), *options)
    return [_pictures(config, "style", "style", *_network(config), *data, *pictures)]


def _agent(config: LectureConfig) -> list[Step]:
    assert config.agent is not None
    run = ("--run", str(config.agent))
    steps = [_pictures(config, "agent", "filters", "strip", *run, "--queries", "6")]
    trained = RunDirectory.open(config.agent).config["config"]
    # Frames are labelled with the action between the last two.
    if trained.get("frame_stack", 4) > 1:
        few = ("--frames.train-frames", "2000", "--frames.test-frames", "500")
        labels = ("--frames.labels", "action", *few, *_frames(config))
        steps.append(_pictures(config, "agent", "neighbours", *run, *labels))
    return steps


def _network(config: LectureConfig) -> tuple[str, ...]:
    return ("--encoder", config.encoder, "--weights", str(config.weights))


def _photographs(config: LectureConfig) -> tuple[str, ...]:
    labels = ("--labels", str(config.labels)) if config.labels else ()
    return ("--data", str(config.data), *labels)


def _frames(config: LectureConfig) -> tuple[str, ...]:
    """Where frames of games are kept."""
    return ("--data-dir", str(_runs(config) / "frames"))


def _device(config: LectureConfig) -> tuple[str, ...]:
    return () if config.device == "auto" else ("--device", config.device)


def _runs(config: LectureConfig) -> Path:
    return config.runs or config.out / "runs"


def _pictures(config: LectureConfig, part: PartName, *arguments: str) -> Step:
    out = ("--out", str(config.out / part))
    return Step("visualize_encoder", (*arguments, *_device(config), *out))


def _train(
    config: LectureConfig, run: Path, epochs: int, images: int | None, *arguments: str
) -> Step:
    """A training with a part's own length, unless the configuration has another."""
    size = config.train_size or images
    sizes = ("--train-size", str(size)) if size else ()
    length = ("--epochs", str(config.epochs or epochs))
    rest = ("--track", "disabled", *_device(config), "--run-dir", str(run))
    return Step("pretrain_encoder", (*arguments, *sizes, *length, *rest))


PARTS: dict[PartName, Part] = {
    "counting": Part(
        "Convolution, and counting",
        "A convolution slides F filters of KxK over an image of C channels. Its parameters are"
        " F (K K C + 1), however large the image is; each output value costs K K C"
        " multiply-accumulates (MACs). LeNet's first layer has 6 (5 5 1 + 1) = 156 parameters.",
        0.1,
        (),
        _counting,
    ),
    "networks": Part(
        "The networks, from AlexNet to DenseNet",
        "Early layers have few parameters and many MACs, since their maps are large. In AlexNet,"
        " ZFNet and VGG the first linear layer has most of the parameters; GoogLeNet, ResNet and"
        " DenseNet replace it by a global mean.",
        0.5,
        (),
        _networks,
    ),
    "lenet": Part(
        "LeNet-5 on MNIST",
        "Convolution, subsampling, convolution, subsampling, then linear layers (LeCun et al."
        " 1998). The last curves are of a short training; the whole recipe has 20 epochs.",
        5,
        ("mnist",),
        _lenet,
    ),
    "filters": Part(
        "What first filters learn",
        "Edges, bars and patches of colour, as in figure 3 of Krizhevsky et al. 2012. Random"
        " filters have no such order.",
        0.2,
        ("weights",),
        _filters,
    ),
    "maps": Part(
        "What later layers answer to",
        "Zeiler & Fergus 2013 looked at the patches that excite a channel most, and improved"
        " AlexNet by what they saw.",
        0.5,
        ("weights", "data"),
        _maps,
    ),
    "predictions": Part(
        "Predictions and errors",
        "The five most probable classes of some photographs, as in figure 4 (left) of Krizhevsky et"
        " al. 2012, and the worst errors.",
        0.5,
        ("weights", "data"),
        _predictions,
    ),
    "saliency": Part(
        "Saliency",
        "Which pixels a class depends on, by four methods. They do not agree: each asks another"
        " question.",
        3,
        ("weights", "data"),
        _saliency,
    ),
    "depth": Part(
        "Deeper is worse without shortcuts",
        "He et al. 2016: a plain network of 56 layers has a larger error than one of 20, also on"
        " the images that it learns from, so this is no overfitting. Shortcuts help at both depths."
        " The deeper residual network is the better one only after a long training.",
        60,
        ("cifar10",),
        _depth,
    ),
    "neighbours": Part(
        "Features: neighbours and t-SNE",
        "Images of one class are near each other in the feature space of a network that never saw"
        " these classes, as in figure 4 (right) of Krizhevsky et al. 2012.",
        2,
        ("weights", "cifar10"),
        _neighbours,
    ),
    "transfer": Part(
        "Transfer: SVM on features, and fine-tuning",
        "The same few images for all: a linear SVM on frozen features, ImageNet's and random ones;"
        " the network fine-tuned; and trained from scratch.",
        15,
        ("weights", "cifar10"),
        _transfer,
    ),
    "style": Part(
        "Style transfer between two games",
        "Gatys et al. 2016: correlations of channels are the style of a picture, and the maps"
        " themselves its content.",
        1,
        ("weights",),
        _style,
    ),
    "agent": Part(
        "From classification to control",
        "The same kind of network chooses the actions of an agent. Its filters, what its choices"
        " depend on, and observations that it sees as similar.",
        2,
        ("agent",),
        _agent,
    ),
}
