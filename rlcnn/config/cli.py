"""What the scripts share: options from a dataclass, and errors in one line."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro

from envs.errors import UserError, nearest
from rlcnn.config.fields import expand_home, option_name
from rlcnn.runs.progress import LastingStream
from rlcnn.runs.stopping import TrainingStopped
from rlcnn.runs.weights_and_biases import mode_from_environment

Options = TypeVar("Options")

# What other libraries (stable-baselines3, its zoo, CleanRL, timm) and our own scripts call a thing:
# its names, and our options for it, of which those that a script has are named.
_ELSEWHERE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("env envs env-id env-name environment game games task", ("--env", "--games")),
    ("algorithm agent", ("--algo",)),
    (
        "total-timesteps total-steps n-timesteps num-timesteps timesteps num-steps-total max-steps"
        " num-frames total-frames max-frames train-for-env-steps n max-epochs",
        ("--total-steps", "--epochs"),
    ),
    (
        "num-epochs n-epochs nb-epoch epoch epochs update-epochs noptepochs mini-epochs",
        ("--epochs", "--ppo.n-epochs"),
    ),
    ("n-envs num-env num-envs num-environments nenvs n-env num-actors", ("--num-envs",)),
    ("num-steps n-steps nsteps rollout-length rollout horizon-length", ("--ppo.n-steps",)),
    ("n-step", ("--ppo.n-steps", "--dqn.n-steps")),
    ("multi-step", ("--dqn.n-steps",)),
    (
        "batch-size minibatch-size mini-batch-size bs b num-minibatches nminibatches",
        ("--batch-size", "--ppo.batch-size", "--dqn.batch-size"),
    ),
    (
        "learning-rate lr step-size",
        ("--learning-rate", "--ppo.learning-rate", "--dqn.learning-rate"),
    ),
    (
        "anneal-lr no-anneal-lr lr-schedule",
        ("--ppo.learning-rate-schedule", "--dqn.learning-rate-schedule"),
    ),
    ("sched scheduler lr-scheduler", ("--schedule",)),
    ("discount discount-factor", ("--ppo.gamma", "--dqn.gamma")),
    (
        "entropy-coef ent-coeff entropy-coefficient exploration-loss-coeff",
        ("--ppo.ent-coef",),
    ),
    ("vf-coeff value-coef value-loss-coef value-loss-coeff critic-coef", ("--ppo.vf-coef",)),
    ("clip-vloss clip-value", ("--ppo.clip-range-vf",)),
    ("kl-threshold", ("--ppo.target-kl",)),
    ("grad-norm clip-grad", ("--ppo.max-grad-norm", "--dqn.max-grad-norm")),
    ("lambda lam gae", ("--ppo.gae-lambda",)),
    ("clip-coef cliprange clip-eps e-clip", ("--ppo.clip-range",)),
    ("norm-adv", ("--ppo.normalize-advantage",)),
    ("buffer-size replay-size memory-size replay-capacity", ("--dqn.buffer-size",)),
    ("learn-start start-learning", ("--dqn.learning-starts",)),
    ("train-frequency", ("--dqn.train-freq",)),
    ("target-network-frequency target-update", ("--dqn.target-update-interval",)),
    ("start-e eps-start", ("--dqn.exploration-initial-eps",)),
    ("end-e eps-end epsilon", ("--dqn.exploration-final-eps",)),
    ("eps-decay", ("--dqn.exploration-fraction",)),
    ("gpu gpus cuda use-cuda num-gpus multi-gpu", ("--device cuda",)),
    ("no-cuda no-gpu cpu", ("--device cpu",)),
    ("rl-device sim-device gpu-id accelerator", ("--device",)),
    ("threads n-threads torch-threads", ("--num-threads",)),
    ("workers j num-worker n-jobs", ("--num-workers", "--workers")),
    ("amp fp16 bf16 mixed-precision native-amp dtype", ("--precision bf16",)),
    ("torch-compile torchcompile compile-mode", ("--compile on",)),
    ("cudagraphs cuda-graph", ("--cuda-graphs on",)),
    (
        "capture-video record-video save-video video videos render render-mode human-render",
        ("--video-every", "--video"),
    ),
    (
        "backbone model arch architecture network net policy cnn encoder-conv-architecture"
        " list-encoders",
        ("--encoder",),
    ),
    ("pretrained checkpoint-path initial-checkpoint", ("--weights imagenet", "--weights")),
    ("freeze frozen", ("--mode frozen",)),
    ("finetune fine-tune", ("--mode finetune",)),
    ("no-track no-wandb", ("--track disabled",)),
    ("wandb use-wandb with-wandb log-wandb tracking logger", ("--track",)),
    ("wandb-project-name wandb-project project-name", ("--project",)),
    (
        "exp-name experiment run-name name output output-dir out-dir log-dir log-folder save-dir"
        " tensorboard-log logdir save-path out train-dir",
        ("--run-dir", "--study-dir"),
    ),
    (
        "save-every save-every-sec save-freq save-interval checkpoint-freq checkpoint-interval",
        ("--checkpoint-every",),
    ),
    ("save-replay-buffer", ("--save-replay",)),
    ("sticky-actions repeat-action-probability", ("--protocol sticky",)),
    ("file conf-file conf cfg yaml config-file", ("--config",)),
    ("checkpoint-hist", ("--keep-checkpoints",)),
    ("eval-freq eval-interval evaluation-interval", ("--eval-every",)),
    ("n-eval-episodes num-eval-episodes eval-envs", ("--eval-episodes", "--episodes")),
    ("n-episodes num-episodes", ("--episodes", "--eval-episodes")),
    (
        "image-size img-size size resolution input-size input-shape screen-size",
        ("--obs-size", "--size", "--augment.resize"),
    ),
    ("model-ema model-ema-decay", ("--ema",)),
    ("reprob random-erase", ("--augment.cutout",)),
    ("hflip", ("--augment.flip",)),
    ("drop", ("--dropout",)),
    ("decay-epochs", ("--milestones",)),
    ("decay-rate lr-gamma", ("--step-factor",)),
    ("n-stack nstack stack framestack num-stack frame-stacks history-length", ("--frame-stack",)),
    ("grayscale gray greyscale grey", ("--obs grey", "--colours grey")),
    ("rgb color colour", ("--obs rgb", "--colours rgb")),
    ("continue load load-checkpoint checkpoint trained-agent i resume-from", ("--resume",)),
    ("dataset data-path dataset-path train-data", ("--data",)),
    ("opt", ("--optimizer",)),
    ("smoothing", ("--label-smoothing",)),
    ("wd", ("--weight-decay",)),
    ("random-seed n-seeds num-seeds", ("--seeds", "--seed")),
)

USER_ERROR = 2
INTERRUPTED = 130
# What a shell reports of a program that SIGPIPE ended.
PIPE_CLOSED = 141

# What begins an option, also where one dash is missing or an editor made another of two; no number.
_DASHES = re.compile(r"^[-\u2010-\u2015\u2212]+(?=[a-z])", re.IGNORECASE)


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to what standard error is at the time: a progress bar puts itself in between."""

    @property
    def stream(self) -> Any:
        """Standard error, as it is now."""
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass


def run_script(main: Callable[[list[str]], None]) -> None:
    """Runs a script's ``main`` on its arguments and exits.

    What a user can mend is printed in one line (status 2). Ctrl-C and a polite kill end the script
    with status 130, also where they were answered with a checkpoint: a command that was to come
    after a whole training does not start. Output that cannot be written stops nothing: the status
    is 141 where its reader has left, and otherwise 2.
    """
    output = LastingStream(sys.stdout)
    sys.stdout, sys.stderr = output, LastingStream(sys.stderr)
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_StderrHandler()])
    logging.getLogger("agents").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # For environments of the user's own, as --env my_module:MyEnv-v0; last, to shadow nothing.
    sys.path.append(os.getcwd())
    status = _status_of(main)
    output.flush()
    if output.error is not None and status == 0:
        status = PIPE_CLOSED
        if not isinstance(output.error, BrokenPipeError):
            reason = output.error.strerror
            print(f"error: cannot write the output: {reason}", file=sys.stderr)
            status = USER_ERROR
    sys.exit(status)


def _status_of(main: Callable[[list[str]], None]) -> int:
    """Runs ``main`` and prints what the user can mend."""
    try:
        main(sys.argv[1:])
    except SystemExit as end:
        return int(end.code or 0)
    except (TrainingStopped, KeyboardInterrupt) as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        problem = _users_problem(error)
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return USER_ERROR
    return 0


def _users_problem(error: Exception) -> str | None:
    """What to tell of an error that the user can mend, or None for one that only we can."""
    if isinstance(error, UserError):
        return str(error)
    # torch has no exception of its own for the host's memory.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in str(error):
        tried = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
        return (
            f"out of memory{f' ({tried[0].lower()})' if tried else ''}: fewer environments"
            " (--num-envs), shorter rollouts (--ppo.n-steps) or smaller batches need less"
        )
    return None


def parse_options(options: type[Options], arguments: Sequence[str], default: Any = None) -> Options:
    """Reads a command line into a dataclass; ``--help`` prints its fields and exits.

    Args:
        options: a dataclass whose attribute docstrings explain its fields.
        arguments: without the program's name.
        default: an instance that says what is not on the command line; without it the fields'
            own defaults do, and those that have none must be given. The environment may replace its
            ``track``: see :func:`rlcnn.runs.weights_and_biases.mode_from_environment`.

    Raises:
        UserError: an option is unknown, or a value is not of its type.
    """
    arguments = [expand_home(argument) for argument in arguments]
    if hasattr(default, "track"):
        default = dataclasses.replace(default, track=mode_from_environment(default.track))
    chosen = {} if default is None else {"default": default}
    if {"-h", "--help"} & set(arguments):
        tyro.cli(options, args=["--help"], description=options.__doc__, **chosen)
    output = io.StringIO()
    try:
        with _captured(output):
            parsed = tyro.cli(options, args=list(arguments), registry=_REGISTRY, **chosen)
    except SystemExit as error:
        known = _known_options(options, chosen)
        for argument in arguments:
            name = _DASHES.sub("--", argument.split("=")[0].replace("_", "-"))
            if name == argument == "--":
                break
            if name.startswith("--") and (name not in known or not argument.startswith("--")):
                raise UserError(f'unknown option "{argument}".{_hint(name, known)}') from error
        raise UserError(_plain(output.getvalue(), arguments, known)) from error
    for field in dataclasses.fields(parsed):
        value = getattr(parsed, field.name)
        # Empty, as a shell's variable that is not set, a path would be the working directory.
        if isinstance(value, Path) or (value == "" and field.default != ""):
            given_value(arguments, option_name(field.name))
    return parsed


@contextlib.contextmanager
def _captured(output: io.StringIO) -> Iterator[None]:
    """Catches what tyro prints, in lines so wide that no value is wrapped."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def whole_number(text: str) -> int:
    """The whole number that is written as ``2000000``, ``2_000_000`` or ``2e6``.

    Raises:
        ValueError: it is none, such as ``1.5``.
    """
    try:
        return int(text)
    except ValueError:
        value = float(text) if re.fullmatch(r"[+-]?[\d_.]+e\+?\d+", text, re.IGNORECASE) else 0.5
        if not (value.is_integer() and abs(value) < 2**53):
            raise
        return int(value)


_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _whole_number_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: whole_number(texts[0]),
        is_instance=lambda value: type(value) is int,
        str_from_instance=lambda value: [str(value)],
    )


def given_value(arguments: Sequence[str], option: str) -> str | None:
    """The last value given to ``option``, written ``--option VALUE`` or ``--option=VALUE``.

    ``--an_option`` is ``--an-option``.

    Raises:
        UserError: the value is empty.
    """
    value = None
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        name, equals, given = argument.partition("=")
        if name.replace("_", "-") != option:
            continue
        if equals:
            value = given
        elif not following.startswith("--"):
            value = following
    if value == "":
        raise UserError(f'{option} takes a value: "" is empty')
    return value if value is None else expand_home(value)


def _hint(name: str, known: set[str]) -> str:
    """As :func:`nearest`, but finds an option by what it is called elsewhere, too."""
    section, last = _parts(name.lower())
    called = next((options for names, options in _ELSEWHERE if last in names.split()), ())
    meant = [option for option in called if option.split()[0] in known]
    meant = meant or [option for option in sorted(known) if _parts(option)[1] == last]
    if section:
        meant = [option for option in meant if _parts(option.split()[0])[0] == section] or meant
    quoted = " or ".join(f'"{option}"' for option in meant)
    if meant:
        return f" Did you mean {quoted}?"
    # Without the dashes, which all have in common, and which make short names alike.
    return nearest(name, known - {"--help"}, lambda option: option.lower().lstrip("-"), cutoff=0.8)


def _parts(option: str) -> tuple[str, str]:
    """Of ``--ppo.gamma`` "ppo" and "gamma"; the first is empty where there is no section."""
    section, _, last = option.removeprefix("--").rpartition(".")
    return section, last


def _known_options(options: type[Any], chosen: dict[str, Any]) -> set[str]:
    """Every option's name, read off the help, which is where a user reads them."""
    output = io.StringIO()
    with _captured(output), contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"], **chosen)
    return set(re.findall(r"--[a-z][\w.-]*[a-z0-9]", output.getvalue()))


def _plain(box: str, arguments: Sequence[str], known: set[str]) -> str:
    """What a box that tyro draws says, in one line and in our words."""
    frame = "╭╮╰╯│─- "
    lines = [line.strip().strip("│").strip() for line in box.splitlines()]
    # The first line is the box's title; the option's help after the message is for --help.
    text = " ".join(line for line in lines[1:] if line.strip(frame))
    text = re.split(r" Argument helptext: | For full helptext", text)[0].strip()
    if text.startswith("Unrecognized options: "):
        return _unexpected(text.removeprefix("Unrecognized options: "), arguments, known)
    for pattern, say in _TYRO_SAYS:
        if found := re.fullmatch(pattern, text):
            return say(*found.groups())
    return text


def _unexpected(listed: str, arguments: Sequence[str], known: set[str]) -> str:
    """What to say of a value that belongs to no option, by what stands before it."""
    before = ""
    for argument in arguments:
        name, equals, given = argument.partition("=")
        name = name.replace("_", "-")
        value = given if equals and name in known else argument
        if name in known:
            before = name
        if listed == value or listed.startswith(f"{value}, "):
            break
    else:
        return f'unexpected argument "{listed}"'
    section, last = _parts(before)
    stem = last.removeprefix("no-")
    switches = {f"--{section}.{word}".replace("--.", "--") for word in (stem, f"no-{stem}")}
    hint = ""
    if before and switches <= known:
        hint = f": {before} takes no value; it is {' or '.join(sorted(switches, reverse=True))}"
    elif before == "--games":
        hint = ": --games takes one value, separated by commas: Pong,Breakout"
    elif before == "--seeds":
        hint = ": --seeds takes how many, which count up from --seed"
    elif equals and not name.startswith("-"):
        hint = "." + _hint(f"--{name}", known)
    elif before:
        hint = f": {before} takes one value"
    return f'unexpected argument "{value}"{hint}'.rstrip(".")


def _missing(names: str) -> str:
    return f"{names} is missing; --help tells what it takes"


def _bad_choice(value: str, option: str, listed: str) -> str:
    choices = [str(choice) for choice in ast.literal_eval(listed)]
    return (
        f'{option} "{value}" is unknown: expected one of {", ".join(choices)}.'
        f"{_synonym_hint(option, value, choices) or nearest(value, choices)}"
    )


def _no_value(option: str) -> str:
    # A switch in other libraries.
    hint = ' Did you mean "--track online"?' if option == "--track" else ""
    return f"{option} takes a value: none given.{hint}".rstrip(".")


def _synonym_hint(option: str, value: str, choices: Sequence[str]) -> str:
    """The choice that other libraries call ``value``; empty where there is none."""
    for names, meant in _SYNONYMS:
        choice = next((choice for choice in meant if choice in choices), None)
        if choice and value.lower() in names.split():
            return f' Did you mean "{option} {choice}"?'
    return ""


# Values of other libraries, and our choices for them: the first that an option has is named.
_SYNONYMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("true yes on y t 1 wandb enabled", ("online", "on")),
    ("false no off n f 0 none", ("disabled", "off")),
    ("32 float32 float full single", ("fp32",)),
    ("16 half float16 fp16 bfloat16 amp mixed", ("bf16",)),
    ("color colour", ("rgb",)),
    ("grayscale greyscale mono", ("grey",)),
    ("scratch", ("train",)),
)


def _number_hint(text: str) -> str:
    """How to write a number such as ``1M`` or ``1,000``; empty for anything else."""
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([kmb])", text, re.IGNORECASE):
        return f' Did you mean "{found[1]}e{_EXPONENTS[found[2].lower()]}"?'
    if re.fullmatch(r"\d{1,3}([,' ]\d{3})+|\d+\.0*", text):
        return f' Did you mean "{re.sub(r"[.]0*$|[^0-9]", "", text)}"?'
    return ""


_EXPONENTS = {"k": 3, "m": 6, "b": 9}


_TYRO_SAYS: list[tuple[str, Callable[..., str]]] = [
    (
        r"Error parsing (\S+): invalid literal for int\(\) with base 10: ['\"](.*)['\"]",
        lambda option, value: f'{option} "{value}" is not a whole number.{_number_hint(value)}',
    ),
    (
        r"Error parsing (\S+): could not convert string to float: ['\"](.*)['\"]",
        lambda option, value: f'{option} "{value}" is not a number',
    ),
    (
        r"Error parsing (\S+): no type matching \{None\}\|(?:INT|FLOAT) .*"
        r" from \[['\"](.*?)['\"]\].*",
        lambda option, value: f'{option} "{value}" is neither a number nor None',
    ),
    (
        r"Error parsing (\S+): Failed to parse key-value pairs!",
        lambda option: f"{option} takes pairs, NAME VALUE NAME VALUE ...",
    ),
    (r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of (\(.*\))\.", _bad_choice),
    (r"Missing value for argument '(\S+)'.*", _no_value),
    (r"Missing from \S+: ([A-Z_]+|--[\w.-]+) .*\(required\).*", _missing),
]
