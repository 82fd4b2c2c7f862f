"""Hints at what a user means: options, choices and numbers as other libraries write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence

from envs.errors import nearest

# Names in other libraries (stable-baselines3, its zoo, CleanRL, timm) and in our own scripts, with
# our options for them; a hint names those that the script has.
_ELSEWHERE = """
env envs env-id env-name environment game games task > --env, --games
algorithm agent > --algo
env-arg env-args env-options env-config > --env-kwargs
vec-env vec-env-type vec-env-cls subproc subproc-vec-env async async-envs num-processes n-procs >
  --env-workers
total-timesteps total-steps steps n-timesteps num-timesteps timesteps num-steps-total max-steps
  num-frames total-frames max-frames train-for-env-steps n max-epochs > --total-steps, --epochs
num-epochs n-epochs nb-epoch epoch epochs update-epochs noptepochs mini-epochs > --epochs,
  --ppo.n-epochs, --pqn.n-epochs
n-envs num-env num-envs num-environments nenvs n-env num-actors > --num-envs
num-steps n-steps nsteps rollout-length rollout horizon-length > --ppo.n-steps, --pqn.n-steps
n-step > --ppo.n-steps, --dqn.n-steps, --pqn.n-steps
nstep multi-step > --dqn.n-steps
batch-size minibatch-size mini-batch-size bs b num-minibatches nminibatches > --batch-size,
  --ppo.batch-size, --dqn.batch-size, --pqn.batch-size
learning-rate lr step-size > --learning-rate, --ppo.learning-rate, --dqn.learning-rate,
  --pqn.learning-rate
anneal-lr no-anneal-lr lr-schedule > --ppo.learning-rate-schedule, --dqn.learning-rate-schedule,
  --pqn.learning-rate-schedule
sched scheduler lr-scheduler > --schedule
discount discount-factor > --ppo.gamma, --dqn.gamma, --pqn.gamma
entropy-coef ent-coeff entropy-coefficient exploration-loss-coeff > --ppo.ent-coef
vf-coeff value-coef value-loss-coef value-loss-coeff critic-coef > --ppo.vf-coef
clip-vloss clip-value > --ppo.clip-range-vf
kl-threshold kl-target desired-kl > --ppo.kl-threshold
normalize-value norm-value value-norm popart > --ppo.normalize-value
normalize-input normalize-observations norm-obs > --encoder-options input_norm running
grad-norm clip-grad > --ppo.max-grad-norm, --dqn.max-grad-norm, --pqn.max-grad-norm
lambda lam gae > --ppo.gae-lambda, --pqn.q-lambda
clip-coef cliprange clip-eps e-clip > --ppo.clip-range
norm-adv > --ppo.normalize-advantage
buffer-size replay-size memory-size replay-capacity > --dqn.buffer-size
learn-start start-learning > --dqn.learning-starts
train-frequency > --dqn.train-freq
target-network-frequency target-update > --dqn.target-update-interval
start-e eps-start > --dqn.exploration-initial-eps, --pqn.exploration-initial-eps
end-e eps-end epsilon > --dqn.exploration-final-eps, --pqn.exploration-final-eps
eps-decay > --dqn.exploration-fraction, --pqn.exploration-fraction
double-dqn double-q ddqn > --dqn.double
noisy-net noisy-nets noisynet > --dqn.noisy
per prioritized-replay prioritised-replay prioritized-experience-replay > --dqn.prioritized
dueling duelling dueling-dqn > --dqn.head dueling
c51 distributional categorical > --dqn.head c51
qr-dqn qrdqn quantile > --dqn.head qr
iqn implicit-quantile > --dqn.head iqn
n-atoms num-atoms > --dqn.atoms
n-quantiles num-quantiles > --dqn.quantiles
vmin > --dqn.v-min
vmax > --dqn.v-max
alpha per-alpha > --dqn.priority-alpha
beta per-beta > --dqn.priority-beta-initial
gpu gpus cuda use-cuda num-gpus multi-gpu > --device cuda
no-cuda no-gpu cpu > --device cpu
rl-device sim-device gpu-id accelerator > --device
threads n-threads torch-threads > --num-threads
workers j num-worker n-jobs > --num-workers, --workers
amp fp16 bf16 mixed-precision native-amp dtype > --precision bf16
torch-compile torchcompile compile-mode > --compile on
cudagraphs cuda-graph > --cuda-graphs on
capture-video record-video save-video video videos render human-render video-freq
  video-frequency video-interval > --video-every, --video
render-mode > --env-kwargs render_mode rgb_array, --video-every, --video
noop-max terminal-on-life-loss episodic-life full-action-space > --protocol
backbone model arch architecture network net policy cnn encoder-conv-architecture list-encoders >
  --encoder
pretrained checkpoint-path initial-checkpoint > --weights imagenet, --weights
freeze frozen > --mode frozen
finetune fine-tune > --mode finetune
no-track no-wandb no-tracking > --track disabled
wandb use-wandb with-wandb log-wandb > --track online
offline > --track offline
tracking logger wandb-mode track-mode > --track
save-model upload-model > --log-model
wandb-project-name wandb-project project-name > --project
exp-name experiment run-name name output output-dir out-dir log-dir log-folder save-dir
  tensorboard-log tb-log log f logdir save-path out train-dir > --run-dir, --study-dir
save-every save-every-sec save-freq save-interval checkpoint-freq checkpoint-interval >
  --checkpoint-every
save-replay-buffer > --save-replay
sticky-actions repeat-action-probability > --protocol sticky
file conf-file conf cfg yaml config-file > --config
checkpoint-hist > --keep-checkpoints
eval-freq eval-interval evaluation-interval > --eval-every
n-eval-episodes num-eval-episodes eval-envs > --eval-episodes, --episodes
n-episodes num-episodes > --episodes, --eval-episodes
image-size img-size size resolution input-size input-shape screen-size > --obs-size, --size,
  --augment.resize
model-ema model-ema-decay > --ema
reprob random-erase > --augment.cutout
hflip > --augment.flip
drop > --dropout
decay-epochs > --milestones
decay-rate lr-gamma > --step-factor
n-stack nstack stack framestack num-stack frame-stacks history-length > --frame-stack
grayscale gray greyscale grey > --obs grey, --colours grey
rgb color colour > --obs rgb, --colours rgb
continue load load-checkpoint checkpoint trained-agent i resume-from > --resume
dataset data-path dataset-path train-data > --data
opt > --optimizer
smoothing > --label-smoothing
wd > --weight-decay
random-seed n-seeds num-seeds > --seeds, --seed
"""

# Values in other libraries, and our choices for them: a hint names the first that the option has.
_SYNONYMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("true yes on y t 1 wandb enabled", ("online", "on")),
    ("false no off n f 0 none", ("disabled", "off")),
    ("32 float32 float full single", ("fp32",)),
    ("16 half float16 fp16 bfloat16 amp mixed", ("bf16",)),
    ("color colour", ("rgb",)),
    ("grayscale greyscale mono", ("grey",)),
    ("scratch", ("train",)),
)

# A name with fewer letters is like too many others; a hint with more options is none.
_SHORTEST, _MOST = 3, 3

_EXPONENTS = {"k": 3, "m": 6, "b": 9}


def hint_at_option(name: str, known: Collection[str]) -> str:
    """A hint such as ``Did you mean "--total-steps"?`` with a leading space, or nothing.

    Args:
        name: an unknown option, such as ``--total-timesteps``.
        known: the options of the script.
    """
    section, last = split_option(name.lower())
    in_section = [option for option in known if section and split_option(option)[0] == section]
    for meant in (*_guesses(last, in_section), *_guesses(last, known)):
        if meant:
            quoted = " or ".join(f'"{option}"' for option in meant)
            return f" Did you mean {quoted}?"
    return ""


def _guesses(name: str, known: Collection[str]) -> Iterator[list[str]]:
    """The options that a name without section may mean; the surest kind of guess comes first."""
    spellings: dict[str, list[str]] = {}
    for option in sorted(known):
        spellings.setdefault(split_option(option)[1], []).append(option)
    for row in _ELSEWHERE.replace("\n  ", " ").strip().splitlines():
        names, options = row.split(" > ")
        if here := [option for option in options.split(", ") if option.split()[0] in known]:
            spellings |= dict.fromkeys(names.split(), here)
    yield spellings.get(name, [])
    if len(name) < _SHORTEST:
        return
    words = _words(name)
    # --no-NAME is no hint for NAME.
    longer = [o for o in sorted(known) if words <= (w := _words(o)) and "no" not in w - words]
    longer = [option for option in longer if not split_option(option)[0]] or longer
    yield longer if len(longer) <= _MOST else []
    for close in difflib.get_close_matches(name, [] if longer else spellings, n=1, cutoff=0.8):
        yield spellings[close]


def _words(option: str) -> set[str]:
    """The words of a name, without the "s" of a plural: "env" and "wrapper" of --env-wrappers."""
    return {word.removesuffix("s") for word in re.findall(r"[^-.]+", option)}


def split_option(option: str) -> tuple[str, str]:
    """Of ``--ppo.gamma`` "ppo" and "gamma"; the first is empty where there is no section."""
    section, _, last = option.removeprefix("--").rpartition(".")
    return section, last


def hint_at_choice(option: str, value: str, choices: Sequence[str]) -> str:
    """As :func:`hint_at_option`, for a value that is none of an option's choices."""
    for names, meant in _SYNONYMS:
        choice = next((choice for choice in meant if choice in choices), None)
        if choice and value.lower() in names.split():
            return f' Did you mean "{option} {choice}"?'
    return nearest(value, choices)


def hint_at_number(text: str) -> str:
    """How to write a whole number such as ``1M`` or ``1,000``; empty for anything else."""
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([kmb])", text, re.IGNORECASE):
        return f' Did you mean "{found[1]}e{_EXPONENTS[found[2].lower()]}"?'
    if re.fullmatch(r"\d{1,3}([,' ]\d{3})+|\d+\.0*", text):
        return f' Did you mean "{re.sub(r"[.]0*$|[^0-9]", "", text)}"?'
    return ""
