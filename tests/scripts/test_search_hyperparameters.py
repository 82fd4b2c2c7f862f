"""``search_hyperparameters.py`` from the command line: refusals, cost, and a killed search."""

from __future__ import annotations

import csv
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.script_runs import (
    GAMES,
    assert_went_on,
    read,
    run_script,
    signal_when_begun,
)

from envs.errors import UserError

Script = Callable[..., None]

OPTIONS = [
    *("--env", "support.games:Signals-v0", "--encoder", "lenet", "--num-envs", "2"),
    *("--obs-size", "36", "--frame-stack", "2", "--precision", "fp32", "--compile", "off"),
    *("--ppo.n-steps", "8", "--ppo.batch-size", "8", "--ppo.n-epochs", "1"),
    *("--eval-every", "0", "--eval-episodes", "2", "--track", "disabled"),
]
EPOCHS = ["--search", "ppo.n-epochs", "1", "2"]


@pytest.fixture
def without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--search is missing: expected NAME VALUE VALUE ..."),
        (["--search"], "--search takes a value: none given"),
        (["--search", "ppo.nepochs", "1", "2"], 'Did you mean "ppo.n-epochs"?'),
        (["--search", "ppo.learning-rate", "log", "0", "1"], "a log range begins above 0"),
        (["--search", "--ppo.n-epochs", "1", "2"], "--search takes a value: none given"),
        ([*EPOCHS, *EPOCHS], 'names "ppo.n-epochs" twice'),
        ([*EPOCHS, "--objective", "reward"], '--objective "reward" is unknown'),
        ([*EPOCHS, "--objective", "seconds-to:fast"], "expected a score, such as seconds-to:18"),
        ([*EPOCHS, "--trials", "0"], "--trials 0 must be at least 1"),
        ([*EPOCHS, "--finalists", "-1"], "--finalists -1 must be at least 0"),
        ([*EPOCHS, "--final-seeds", "0"], "--final-seeds 0 must be at least 1"),
        ([*EPOCHS, "--workers", "-1"], "--workers -1 must be at least 0"),
        ([*EPOCHS, "--eval-episodes", "0"], "--eval-episodes 0 leaves nothing to compare"),
        ([*EPOCHS, "--sampler", "grid"], "expected one of tpe, random"),
        ([*EPOCHS, "--prune", "hyperband"], "expected one of median, off"),
        ([*EPOCHS, "--games", "Pong"], 'unknown option "--games". Did you mean "--env"?'),
        ([*EPOCHS, "--env", "ALE/Pog-v5"], 'Did you mean "ALE/Pong-v5"?'),
        ([*EPOCHS, "--seed", "2147483647"], "leaves no room for --final-seeds 3"),
        ([*EPOCHS, "--resume", "nowhere"], "holds no search.json, so it is no search"),
        ([*EPOCHS, "--config", "nowhere"], "configuration nowhere is not a file"),
        ([*EPOCHS, "--config", "a.json", "--preset", "zoo"], "--config and --preset both say"),
        ([*EPOCHS, "--ppo.gamma", "2"], "--ppo.gamma 2"),
    ],
)
def test_bad_options_are_one_line(
    search_hyperparameters: Script,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        search_hyperparameters(*OPTIONS, *arguments)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_optuna")
def test_optuna_that_is_not_installed_is_one_line(
    search_hyperparameters: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r'pip install "rlcnn\[search\]"'):
        search_hyperparameters(*OPTIONS, *EPOCHS, "--search-dir", tmp_path / "search")
    assert not (tmp_path / "search").exists()
    with pytest.raises(SystemExit, match="0"):
        search_hyperparameters("--help")
    assert "--search NAME VALUE ..." in capsys.readouterr().out


def test_there_is_no_report_without_a_search(
    search_hyperparameters: Script, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    place = ["--search-dir", tmp_path / "search"]
    with pytest.raises(UserError, match="holds no search to report on"):
        search_hyperparameters(*OPTIONS, *EPOCHS, *place, "--report-only")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_was_killed_or_stopped_goes_on_and_loses_no_trial(
    number: signal.Signals, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    search = tmp_path / "a search"
    arguments = [
        *OPTIONS,
        *("--total-steps", "3000", "--checkpoint-every", "200", "--search-dir", search),
        *("--search", "ppo.learning-rate", "log", "1e-4", "1e-2", "--trials", "3"),
        *("--prune", "off", "--finalists", "1", "--final-seeds", "1", "--workers", "2"),
    ]
    run = signal_when_begun(number, search, "trials/*", "search_hyperparameters", *arguments)
    # The directory alone says what the search was.
    again = run_script("search_hyperparameters", "--resume", search, "--workers", "2", cwd=GAMES)
    assert again.returncode == 0, again.stderr
    with open(search / "trials.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["state"]) for row in rows] == [
        (str(number), "done") for number in range(3)
    ]
    assert_went_on(run, search / "logs" / f"{run.name}.log")
    assert read(search / "config.json")["config"]["env"] == "support.games:Signals-v0"
