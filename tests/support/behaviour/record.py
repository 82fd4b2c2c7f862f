"""Records digests of what short runs give, to show that a change of the code changes no behaviour.

    python tests/support/behaviour/record.py --out before.json
    ... change the code ...
    python tests/support/behaviour/record.py --out after.json --compare before.json

The second call prints each case that differs and exits with 1. Digests hold for one machine and one
set of installed packages: another processor may round otherwise. Everything is computed by one
thread in fp32. Only what users see is used: the scripts, the files that they leave, and
``agents.PPO`` and ``agents.DQN``. ``--keep DIR`` keeps the files, to see what differs in them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
SUPPORT = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(SUPPORT)]
# One thread and one width of text everywhere, set before torch is imported.
os.environ.update(OMP_NUM_THREADS="1", COLUMNS="250", WANDB_MODE="disabled")

import numpy as np  # noqa: E402
from digests import (  # noqa: E402
    digest_of_json,
    digest_of_table,
    digest_of_tensors,
    digest_of_text,
    digests_of_run,
)
from PIL import Image  # noqa: E402

Digests = dict[str, str]

GAME = "recorded_game:Catch-v0"
CPU = [*("--device", "cpu", "--precision", "fp32", "--num-threads", "1"), *("--track", "disabled")]
RUN = [
    *(*CPU, "--seed", "3", "--num-envs", "2", "--total-steps", "128"),
    *("--eval-every", "64", "--eval-episodes", "3", "--video-every", "0"),
    *("--checkpoint-every", "64", "--keep-checkpoints", "4"),
    *("--ppo.n-steps", "16", "--ppo.batch-size", "16", "--ppo.n-epochs", "2"),
    *("--dqn.buffer-size", "120", "--dqn.learning-starts", "32", "--dqn.batch-size", "8"),
    *("--dqn.train-freq", "2", "--dqn.target-update-interval", "16"),
    # So high that each update changes what the agent does.
    *("--dqn.learning-rate", "0.01"),
]
CATCH = [*RUN, "--env", GAME, "--obs-size", "36", "--frame-stack", "2"]
LENET = ["--encoder", "lenet"]
BACKBONE = "squeezenet1_1:features.4"
PONG = [
    *(*RUN, "--env", "ALE/Pong-v5", "--eval-every", "0", "--eval-episodes", "0"),
    *("--obs-size", "44"),
]


class Recorder:
    """Runs scripts in one directory and digests what they leave there."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.weights = place / "frames" / "best.safetensors"

    def script(self, name: str, *arguments: object) -> str:
        """What a script prints.

        Raises:
            RuntimeError: it failed.
        """
        ended = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)],
            cwd=self.place,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(SUPPORT)))},
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            raise RuntimeError(f"{name} {' '.join(map(str, arguments))}\n{ended.stderr}")
        return ended.stderr + ended.stdout

    def train(self, run: str, *options: object) -> Digests:
        """A new run of ``train_agent.py``."""
        self.script("train_agent", *options, "--run-dir", self.place / run)
        return digests_of_run(self.place / run, self.place)

    def resume(self, run: str, before: str) -> Digests:
        """A copy of a run that goes on from its last checkpoint but one, as after a kill."""
        copy = shutil.copytree(self.place / before, self.place / run)
        shutil.rmtree(sorted((copy / "checkpoints").iterdir())[-1])
        (copy / "summary.json").unlink()
        self.script("train_agent", "--resume", copy)
        return digests_of_run(copy, self.place)

    def extend(self, run: str, before: str) -> Digests:
        """A copy of a finished run that is made longer."""
        copy = shutil.copytree(self.place / before, self.place / run)
        self.script("train_agent", "--resume", copy, "--total-steps", 192)
        return digests_of_run(copy, self.place)

    def result(self, script: str, *arguments: object) -> Digests:
        """The result that a script writes as JSON."""
        path = self.place / "result.json"
        self.script(script, *arguments, "--json", path)
        result = json.loads(path.read_text())
        path.unlink()
        return {"result": digest_of_json(result, self.place)}

    def pretrain_images(self) -> Digests:
        """Pretraining on a folder of images that differ in size, with augmentation."""
        random = np.random.default_rng(0)
        for name, level in (("dark", (0, 20, 40)), ("light", (90, 110, 100)), ("red", (130, 0, 0))):
            folder = self.place / "images" / name
            folder.mkdir(parents=True)
            for number in range(16):
                pixels = np.array(level) + random.integers(0, 120, (40, 36 + number % 4, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        return self._pretrain(
            "images-run",
            *("--recipe", "resnet-cifar-2016", "--batch-size", 8),
            *("--data", f"folder:{self.place / 'images'}", "--augment.resize", 36, "--epochs", 2),
            *("--learning-rate", 0.01, "--ema", 0.9, "--baselines", "on"),
        )

    def pretrain_frames(self) -> Digests:
        """Pretraining on frames of Pong; agents begin with its weights."""
        return self._pretrain(
            self.weights.parent.name,
            *("--data", "atari:Pong", "--frames.train-frames", 200, "--frames.test-frames", 100),
            *("--frames.obs-size", 36, "--frames.frame-stack", 2, "--frames.labels", "ram"),
            *("action", "--encoder", "lenet", "--encoder-options", "features_dim", 16),
            *("--epochs", 2, "--batch-size", 32, "--baselines", "off", "--keep-checkpoints", 4),
        )

    def resume_pretraining(self) -> Digests:
        """Pretraining that goes on from its last checkpoint but one, as after a kill."""
        copy = shutil.copytree(self.weights.parent, self.place / "frames-resumed")
        shutil.rmtree(sorted((copy / "checkpoints").iterdir())[-1])
        for name in ("summary.json", "best.safetensors", "last.safetensors"):
            (copy / name).unlink()
        self.script("pretrain_encoder", "--resume", copy)
        return digests_of_run(copy, self.place)

    def _pretrain(self, run: str, *options: object) -> Digests:
        path = self.place / run
        self.script("pretrain_encoder", *options, *CPU, "--seed", 3, "--run-dir", path)
        return digests_of_run(path, self.place)

    def frozen_backbone(self, algo: str) -> Digests:
        """A frozen torchvision backbone, cut at a node, with weights from a seeded file."""
        import torch
        from torchvision import models

        path = self.place / "backbone.pth"
        torch.manual_seed(1)
        torch.save(models.get_model(BACKBONE.partition(":")[0]).state_dict(), path)
        return self.train(
            f"{algo}-backbone",
            *(*CATCH, "--algo", algo, "--encoder", BACKBONE, "--weights", path),
            *("--mode", "frozen", "--obs", "rgb", "--obs-size", 48, "--total-steps", 64),
        )

    def study(self) -> Digests:
        """Two arms x 2 seeds: the table of results, the scores of random play and the verdict."""
        path = self.place / "study"
        options = [*CATCH[: CATCH.index("--env")], *CATCH[CATCH.index("--obs-size") :], *LENET]
        output = self.script(
            "compare_encoders",
            *(*options, "--encoder-options", "features_dim", 16, "--games", GAME, "--seeds", 2),
            *("--arms", "scratch", f"frozen:{self.weights}", "--workers", 1, "--study-dir", path),
        )
        again = self.script("compare_encoders", "--resume", path, "--report-only")
        return {
            "results.csv": digest_of_table(path / "results.csv", self.place),
            "random.json": digest_of_json(json.loads((path / "random.json").read_text()), path),
            "verdict": digest_of_text(verdict(output), self.place),
            "verdict reported anew": digest_of_text(verdict(again), self.place),
            **{
                f"{run.name}/{name}": digest
                for run in sorted((path / "runs").iterdir())
                for name, digest in digests_of_run(run, self.place).items()
            },
        }

    def library(self, algo: str) -> Digests:
        """Training, prediction, saving and loading by ``agents.PPO`` or ``agents.DQN``."""
        import recorded_game  # noqa: F401 - registers the game
        import torch
        from stable_baselines3.common.env_util import make_vec_env

        import agents

        torch.set_num_threads(1)
        options: dict[str, dict[str, Any]] = {
            "PPO": {"n_steps": 16, "batch_size": 16, "n_epochs": 2},
            "DQN": {"buffer_size": 100, "learning_starts": 16, "batch_size": 8, "train_freq": 2},
        }
        name = algo.upper()
        kind = getattr(agents, name)
        env = make_vec_env("Catch-v0", n_envs=2, seed=3)
        model = kind("CnnPolicy", env, seed=3, device="cpu", **options[name]).learn(96)
        path = self.place / f"{algo}.zip"
        model.save(path)
        loaded = kind.load(path, env=env, device="cpu")
        observations = np.random.default_rng(0).integers(0, 256, (8, 36, 36, 1), dtype=np.uint8)
        actions = {
            label: which.predict(observations, deterministic=True)[0]
            for label, which in (("trained", model), ("loaded", loaded))
        }
        parameters = {key: t.numpy() for key, t in model.policy.state_dict().items()}
        return {"parameters": digest_of_tensors(parameters), "actions": digest_of_tensors(actions)}


def verdict(output: str) -> str:
    """What a study says of its results: its table and what follows, but for paths."""
    lines = [line.rstrip() for line in output.splitlines()]
    first = next(place for place, line in enumerate(lines) if line.startswith("game "))
    last = next(place for place, line in enumerate(lines) if line.startswith("table:"))
    return "\n".join(lines[first:last])


def cases(recorder: Recorder) -> dict[str, Callable[[], Digests]]:
    """Every case by its name; some use the runs of those before them."""
    train, result = recorder.train, recorder.result
    found: dict[str, Callable[[], Digests]] = {
        "pretrain-images": recorder.pretrain_images,
        "pretrain-frames": recorder.pretrain_frames,
        "pretrain-frames-resumed": recorder.resume_pretraining,
        "evaluate-classifier": lambda: result(
            "evaluate_classifier", recorder.place / "images-run", "--device", "cpu"
        ),
        "probe": lambda: result(
            *("probe_encoder", "--encoder", "cifar_resnet", "--size", 36, "--device", "cpu"),
            *("--data", f"folder:{recorder.place / 'images'}"),
            *("--weights", recorder.place / "images-run", "--seed", 3),
        ),
    }
    small = [*LENET, "--encoder-options", "features_dim", "16"]
    for algo in ("ppo", "dqn"):
        common = [*CATCH, "--algo", algo, *small]
        for mode in ("train", "finetune", "frozen"):
            start = [] if mode == "train" else ["--weights", recorder.weights]
            for overlap in ("off", "on"):
                name = f"{algo}-{mode}" + ("-overlap" if overlap == "on" else "")
                options = (name, *common, "--mode", mode, *start, "--overlap", overlap)
                found[name] = lambda options=options: train(*options)
        resumed, extended = f"{algo}-resumed", f"{algo}-extended"
        found |= {
            resumed: lambda run=resumed, algo=algo: recorder.resume(run, f"{algo}-train"),
            extended: lambda run=extended, algo=algo: recorder.extend(run, f"{algo}-frozen"),
            f"{algo}-backbone": lambda algo=algo: recorder.frozen_backbone(algo),
            f"{algo}-evaluated": lambda algo=algo: result(
                "evaluate_agent", recorder.place / f"{algo}-train", "--episodes", 4
            ),
            f"{algo}-library": lambda algo=algo: recorder.library(algo),
        }
    return found | {
        "ppo-pong": lambda: train(
            *("ppo-pong", *PONG, "--algo", "ppo", "--encoder", "nature", "--env-groups", 2),
            *("--protocol", "sticky", "--ppo.clip-range-vf", 0.2, "--ppo.target-kl", 0.05),
            *("--ppo.ent-coef-schedule", "linear"),
        ),
        "dqn-pong": lambda: train(
            *("dqn-pong", *PONG, "--algo", "dqn", "--encoder", "impala", "--dqn.n-steps", 3),
            *("--dqn.tau", 0.5, "--dqn.gradient-steps", 2, "--obs", "rgb", "--total-steps", 96),
        ),
        "ppo-pong-evaluated": lambda: result(
            *("evaluate_agent", recorder.place / "ppo-pong", "--episodes", 2, "--deterministic"),
            *("--protocol", "classic", "--seed", 5),
        ),
        "ppo-unfreeze": lambda: train(
            *("ppo-unfreeze", *CATCH, "--algo", "ppo", *small, "--mode", "finetune"),
            *("--weights", recorder.weights, "--unfreeze-from", "trunk.s4"),
            *("--unfreeze-at-step", 64),
        ),
        "study": recorder.study,
    }


def record(place: Path, only: str) -> dict[str, Digests]:
    """Digests of all cases whose names contain ``only``, each printed with its CPU seconds.

    A case that fails is recorded with its error, and the others follow.
    """
    found: dict[str, Digests] = {}
    for name, case in cases(Recorder(place)).items():
        if only not in name:
            continue
        began = _cpu_seconds()
        try:
            found[name] = case()
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}".replace(str(place), "")}
            print(f"{name} failed: {error}", file=sys.stderr)
        print(f"{name}: {_cpu_seconds() - began:.1f} s", flush=True)
    return found


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def machine() -> dict[str, str]:
    """What digests depend on beside the code."""
    import torch

    return {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "platform": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def differences(before: dict[str, Digests], now: dict[str, Digests]) -> list[str]:
    """A line for each case that differs, with what of it does."""
    lines = []
    for name in dict.fromkeys([*before, *now]):
        if name not in before or name not in now:
            lines.append(f"{name}: only {'recorded now' if name in now else 'in the other file'}")
            continue
        then, here = before[name], now[name]
        items = [key for key in dict.fromkeys([*then, *here]) if then.get(key) != here.get(key)]
        if items:
            lines.append(f"{name}: {', '.join(items)}")
    return lines


def main() -> None:
    """Parses the command line, records, writes and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file to write the digests to")
    parser.add_argument("--compare", type=Path, help="file of digests to compare with")
    parser.add_argument("--keep", type=Path, help="new directory that keeps all runs")
    parser.add_argument("--only", default="", help="cases whose names contain this text")
    options = parser.parse_args()
    before = json.loads(options.compare.read_text()) if options.compare else None
    with tempfile.TemporaryDirectory() as scratch:
        place = options.keep.resolve() if options.keep else Path(scratch).resolve()
        place.mkdir(parents=True, exist_ok=True)
        document = {"machine": machine(), "cases": record(place, options.only)}
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    failed = [name for name, case in document["cases"].items() if "failed" in case]
    if before is None:
        sys.exit(1 if failed else 0)
    if before["machine"] != document["machine"]:
        print(f"another machine: {before['machine']} there, {document['machine']} here")
    then = {name: case for name, case in before["cases"].items() if options.only in name}
    differing = differences(then, document["cases"])
    print(*differing, f"{len(differing)} of {len(document['cases'])} cases differ", sep="\n")
    sys.exit(1 if differing or failed else 0)


if __name__ == "__main__":
    main()
