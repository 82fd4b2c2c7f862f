"""The scripts as fixtures, and a finished run on real emulator frames."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from support.script_runs import ROLLOUT, TINY, load_script

from envs.protocol import PROTOCOLS


def _in_process(script: str) -> Any:
    """A fixture with the script in this process: it raises what the script would print."""

    @pytest.fixture(scope="session", name=script)
    def run() -> Callable[..., None]:
        main = load_script(script).main
        return lambda *arguments: main([str(argument) for argument in arguments])

    return run


train_agent = _in_process("train_agent")
evaluate_agent = _in_process("evaluate_agent")
pretrain_encoder = _in_process("pretrain_encoder")
evaluate_classifier = _in_process("evaluate_classifier")
probe_encoder = _in_process("probe_encoder")
visualize_encoder = _in_process("visualize_encoder")
benchmark = _in_process("benchmark")
make_lecture = _in_process("make_lecture")
film_agents = _in_process("film_agents")
compare_encoders = _in_process("compare_encoders")
search_hyperparameters = _in_process("search_hyperparameters")


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads


@contextmanager
def _truncated_games() -> Iterator[None]:
    """Ends games of evaluations and films early: some agents play for ever."""
    with pytest.MonkeyPatch.context() as patch:
        for name, protocol in PROTOCOLS.items():
            patch.setitem(PROTOCOLS, name, dataclasses.replace(protocol, max_episode_steps=60))
        yield


@pytest.fixture(autouse=True)
def _short_games() -> Iterator[None]:
    with _truncated_games():
        yield


@pytest.fixture(scope="session")
def finished(
    train_agent: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A finished run and its output. Copy it to change it."""
    path = tmp_path_factory.mktemp("finished") / "run [1]"
    with _truncated_games(), redirect_stderr(StringIO()) as said:
        train_agent(
            *TINY,
            *("--total-steps", 3 * ROLLOUT, "--checkpoint-every", ROLLOUT, "--run-dir", path),
            *("--track", "offline"),
        )
        # W&B's own process writes its log until it ends.
        pytest.importorskip("wandb").teardown()
    return path, said.getvalue()


@pytest.fixture
def finished_copy(finished: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))
