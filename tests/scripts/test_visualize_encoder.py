"""Pictures of networks from the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from support.colour_networks import colour_classifier
from support.picture_files import write_mnist, write_stripes

from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.weights.load import save_encoder

Script = Callable[..., None]

# It needs an extra.
SALIENCY = ["saliency"] if find_spec("captum") else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stripes(tmp_path_factory.mktemp("stripes"), train=12, test=6)


@pytest.fixture
def draw(visualize_encoder: Script) -> Script:
    """The script, whatever the environment says of tracking."""
    return lambda *arguments: visualize_encoder(*arguments, "--track", "disabled")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lenet.safetensors"
    save_encoder(create_encoder("lenet", (1, 32, 32)), path)
    return path


def test_one_command_draws_a_gallery_of_several_pictures(
    folder: Path,
    weights: Path,
    draw: Script,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "new" / "pictures"
    # The weights name their encoder.
    draw(
        *("filters", "activations", "neighbours", "embedding", "style", "--weights", weights),
        *("--data", f"folder:{folder}", "--layer", "c3", "--image", 2, "--out", out),
        *("--neighbours", 3, "--queries", 2, "--perplexity", 4, "--style.steps", 3, "--maps", 2),
    )
    names = ["embedding", "filters", "maps", "neighbours", "patches", "style", "style-result"]
    written = [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert sorted(path.name for path in out.iterdir()) == sorted([*written, "index.html"])
    page = (out / "index.html").read_text()
    assert "receptive field: 14x14 pixels" in page
    assert "across-2.png" in page
    assert "python scripts/visualize_encoder.py filters activations" in page
    said = capsys.readouterr()
    assert "receptive field of lenet, layer c3: 14x14 pixels" in said.err
    assert "have the class of their query; by chance it would be 50%" in said.err
    assert f"wrote {out / 'index.html'}" in said.out


def test_pictures_of_a_classifier_show_its_errors_and_accuracy(
    folder: Path,
    pretrain_encoder: Script,
    evaluate_classifier: Script,
    draw: Script,
    tmp_path: Path,
) -> None:
    run, data = tmp_path / "run", f"folder:{folder}"
    pretrain_encoder(
        *("--encoder", "lenet", "--data", data, "--epochs", 1, "--batch-size", 8),
        *("--run-dir", run, "--track", "disabled", "--precision", "fp32"),
    )
    evaluate_classifier(run, "--json", tmp_path / "result.json")
    draw(
        *("errors", "charts", *SALIENCY, "filters", "--run", run, "--out", tmp_path / "pictures"),
        *("--results", tmp_path / "result.json"),
    )
    names = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    # Without errors there is no picture of them.
    assert names - {"worst"} == {
        *("confusion", "top5", "accuracy", "accuracy-own-1", "times", "filters", *SALIENCY),
    }


def test_an_agent_shows_frames_of_its_own_play(
    finished: tuple[Path, str], draw: Script, tmp_path: Path
) -> None:
    draw(
        *("filters", "activations", "neighbours", "strip", *SALIENCY, "--run", finished[0]),
        *("--frames.train-frames", 100, "--frames.test-frames", 100, "--frames.labels", "action"),
        *("--data-dir", tmp_path / "data", "--out", tmp_path / "pictures", "--neighbours", 2),
        *("--queries", 2, "--maps", 2),
    )
    page = (tmp_path / "pictures" / "index.html").read_text()
    assert "nature, input 4x44x44" in page
    assert "atari:Breakout: 100 training, 100 held-out images" in page
    names = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    assert names == {"filters", "maps", "patches", "neighbours", "strip", *SALIENCY}
    assert "the gradient of the action&#39;s log probability by each pixel" in page
    explained = "log probability of the chosen output depends on, of a stack the newest frame"
    assert (explained in page) == bool(SALIENCY)


def test_filters_of_an_agent_need_no_games(
    finished: tuple[Path, str], draw: Script, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    draw("filters", "--run", finished[0], "--data-dir", data, "--out", tmp_path / "pictures")
    assert (tmp_path / "pictures" / "filters.png").exists()
    assert not data.exists()


def test_images_of_a_classifier_are_those_of_its_own_data_directory(
    pretrain_encoder: Script, draw: Script, tmp_path: Path
) -> None:
    write_mnist(tmp_path / "digits", train=20, test=20)
    run = tmp_path / "run"
    pretrain_encoder(
        *("--recipe", "lenet5-1998", "--data-dir", tmp_path / "digits", "--epochs", 1),
        *("--run-dir", run, "--track", "disabled", "--num-threads", 1, "--precision", "fp32"),
    )
    draw("curves", "neighbours", "--trainings", run, "--run", run, "--out", tmp_path / "pictures")
    names = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    assert names == {"curves", "neighbours"}


def test_an_agent_of_another_game_shows_what_it_observed_and_chose(
    train_agent: Script, draw: Script, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_agent(
        *("--env", "support.games:Signals-v0", "--obs-size", 36, "--num-envs", 2),
        *("--num-threads", 1, "--precision", "fp32", "--compile", "off", "--track", "disabled"),
        *("--ppo.n-steps", 8, "--ppo.batch-size", 16, "--ppo.n-epochs", 1, "--eval-episodes", 1),
        *("--total-steps", 16, "--run-dir", run),
    )
    draw(
        *("neighbours", "--run", run, "--frames.train-frames", 100),
        *("--frames.test-frames", 100, "--queries", 2, "--out", tmp_path / "pictures"),
    )
    page = (tmp_path / "pictures" / "index.html").read_text()
    assert "own play: 100 training, 100 held-out images" in page
    assert "Nearest neighbours by features of nature, action" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "PICTURE is missing: expected one of filters, activations"),
        ("filtres --encoder lenet", '"filtres" is unknown: expected one of filters'),
        ("charts filters charts", "pictures charts filters charts: give each once"),
        ("filters", '--weights "none" does not name its encoder: give --encoder NAME'),
        ("filters --encoder lenett", 'Did you mean "lenet"?'),
        ("filters --encoder lenet --run x", "--run has its own network"),
        ("filters --run nowhere", "run directory nowhere does not exist"),
        ("activations --encoder lenet", "these pictures need images: give --data folder:DIR"),
        ("activations {of} --layer c4", 'has no layer "c4". It has c1, c1_squash'),
        ("activations {of} --size 16 --layer s4", "has maps of 1x1 pixels, not feature maps"),
        ("activations {of} --image 12", "--image 12 must be below 12, the number of held-out"),
        ("activations {of} --image cat.png", "is neither a file nor the number of a held-out"),
        ("activations {of} --test-images 13", "--test-images 13 must be at most 12"),
        ("neighbours {of} --train-images 30", "--train-images 30 must be at most 24"),
        ("neighbours {of} --neighbours 25", "--neighbours 25 must be at most 24"),
        ("neighbours {of} --queries 13", "--queries 13 must be at most 12"),
        ("neighbours {of} --task colour", '--task "colour" is unknown: the images have class'),
        ("embedding {of} --perplexity 12", "--perplexity 12 must be more than 0 and less than 12"),
        ("embedding {of} --perplexity 0", "--perplexity 0.0 must be more than 0"),
        ("saliency {of}", "--weights none has no classifier: give trained weights"),
        ("errors {of}", "--weights none has no classifier: give trained weights"),
        ("style {of} --style.style nothing.jpg", '--style.style "nothing.jpg" is neither a file'),
        ("style {of} --style.style {text}", "is not an image that Pillow can read"),
        ("style {of} --style.content-layers c9", 'has no layer "c9"'),
        ("style {of} --style.steps 0", "--style.steps 0 must be at least 1"),
        ("strip {of}", "strip shows an agent's game: give --run RUN_DIR"),
        ("curves", "curves need --trainings RUN_DIR..., runs of pretrain_encoder.py"),
        ("charts --trainings {folder}", "--trainings are for the picture curves"),
        ("curves --trainings {folder}", "holds no config.json, so it is not a run"),
        ("charts --results nothing.json", '--results "nothing.json" cannot be read: No such file'),
        ("charts --benchmark {text}", "is not JSON"),
        ("filters --encoder lenet --labels a.csv", "--labels is for the images of a folder"),
        ("filters --encoder lenet --data {folder}", "is a folder: give it as --data"),
        ("filters --encoder lenet --data folder:{folder}/train/down", "no folder for each class"),
        ("activations --encoder nature --data atari:Pong --image {text} {few}", "is one image"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    options: str, said: str, folder: Path, draw: Script, tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    of = f"--encoder lenet --data folder:{folder}"
    few = f"--frames.train-frames 100 --frames.test-frames 100 --data-dir {tmp_path}/data"
    arguments = shlex.split(options.format(of=of, folder=folder, text=text, few=few))
    with pytest.raises(UserError) as refused:
        draw(*arguments, "--out", tmp_path / "pictures")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("picture", ["strip", "saliency"])
@pytest.mark.parametrize("data", ["atari:Pong", "mnist"])
def test_actions_are_not_explained_on_another_game(
    picture: str, data: str, finished: tuple[Path, str], draw: Script, tmp_path: Path
) -> None:
    options = ("--run", finished[0], "--data", data, "--out", tmp_path / "pictures")
    said = rf'{picture} explains actions of an agent of "ALE/Breakout-v5", but --data is "{data}"'
    with pytest.raises(UserError, match=said):
        draw("filters", picture, *options)
    assert not (tmp_path / "pictures").exists()


def test_saliency_of_more_images_than_there_are_is_refused(
    folder: Path, draw: Script, tmp_path: Path
) -> None:
    run = colour_classifier(tmp_path / "run", f"folder:{folder}")
    with pytest.raises(UserError, match="--queries 13 must be at most 12, the number of held-out"):
        draw("saliency", "--run", run, "--queries", 13, "--out", tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_a_directory_that_cannot_be_made_is_refused_before_any_work(
    draw: Script, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r'file" is a file, not a directory'):
        draw("charts", "--out", tmp_path / "file" / "pictures")


@pytest.mark.parametrize("mode, size", [("RGBA", (40, 20)), ("P", (64, 64)), ("1", (9, 33))])
def test_a_style_picture_of_another_size_or_mode_is_converted(
    mode: str, size: tuple[int, int], folder: Path, draw: Script, tmp_path: Path
) -> None:
    Image.new("RGB", size, (200, 10, 10)).convert(mode).save(tmp_path / "style.png")
    draw(
        *("style", "--encoder", "lenet", "--data", f"folder:{folder}", "--style.steps", 1),
        *("--style.style", tmp_path / "style.png", "--out", tmp_path / "pictures"),
    )
    assert "style.png" in (tmp_path / "pictures" / "index.html").read_text()


def test_published_times_stand_beside_a_benchmark_of_this_project(
    draw: Script, tmp_path: Path
) -> None:
    from agents.benchmark.encoder_table import IMAGES, EncoderTimes
    from agents.measure.timing import Spread

    spread = Spread((1.0, 2.0, 3.0))
    row = EncoderTimes("alexnet", IMAGES, "fp32", 61_100_840, spread, spread)
    speed = tmp_path / "speed.json"
    speed.write_text(json.dumps({"encoders": [row.to_json()]}, default=vars))
    draw("charts", "--benchmark", speed, "--out", tmp_path / "pictures")
    assert (
        "medians of benchmark.py on this machine"
        in (tmp_path / "pictures" / "index.html").read_text()
    )
