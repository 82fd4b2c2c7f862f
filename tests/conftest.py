"""What all tests share."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


def _keep_to_own_cores() -> None:
    """Divides the cores among pytest's worker processes.

    Threads that wait for one another, as torch's do, lose far more than their share where others
    compute on the same cores. Done before torch is imported, which counts the cores only once.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1 and hasattr(os, "sched_setaffinity"):
        number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % len(cores) :: workers])


_keep_to_own_cores()

import pytest  # noqa: E402
import torch  # noqa: E402
from support.pretend_gpu import pretend_gpu  # noqa: E402, F401


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Accepts the settings in pyproject.toml where the plugins that read them are not installed."""
    if not pluginmanager.hasplugin("xdist"):
        group = parser.getgroup("without pytest-xdist")
        # The public addoption refuses lower-case letters, which plugins may not use.
        group._addoption("-n", help="ignored: all tests run in this process")
        group.addoption("--maxprocesses", help="ignored")
        group.addoption("--dist", help="ignored")
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "ignored: no test is stopped")


def pytest_configure(config: pytest.Config) -> None:
    """Knows the marker of pytest-timeout where that is not installed."""
    if not config.pluginmanager.hasplugin("timeout"):
        config.addinivalue_line("markers", "timeout(seconds): ignored")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked ``gpu`` where torch finds no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def sb3_log_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the directory that stable-baselines3 makes for every logger out of ``/tmp``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SB3_LOGDIR", str(tmp_path_factory.mktemp("sb3-logs")))
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Lets torch compute with one CPU thread, as some comparisons to the bit need it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that RLCNN_DATA names; it is no part of the project."""
    folder = Path(os.environ.get("RLCNN_DATA", ""))
    if "RLCNN_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("RLCNN_DATA names no folder of real data")
    return folder


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """A block in which the operating system refuses to write files beyond so many bytes."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
