"""Fixtures of the tests that attach to the kernel: each leaves it as it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import leaks
from tests.kernel.processes import Processes, wait_until
from tests.kernel.workloads import Workloads


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """These tests attach to the kernel."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    # What earlier captures have left must not decide how a test goes, nor a test leave anything.
    os.environ["SBERF_CACHE_DIR"] = ""
    leaks.adopt_orphans()


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No BPF object, perf event, process or unfinished directory of ours is left after the test."""
    before = leaks.find(tmp_path)
    yield
    # The kernel frees programs and maps a little after their last user has gone.
    left: frozenset[leaks.Left] = frozenset()

    def nothing_is() -> bool:
        nonlocal left
        left = leaks.find(tmp_path) - before
        return not left

    wait_until(nothing_is, lambda: f"left: {sorted(left)}")


@pytest.fixture(scope="session")
def workloads(tmp_path_factory: pytest.TempPathFactory) -> Workloads:
    """Builds the programs of tests/workloads."""
    directory = tmp_path_factory.mktemp("workloads")
    for path in (directory, directory.parent, directory.parent.parent):
        path.chmod(0o755)  # some of them run as another user
    return Workloads(directory)


@pytest.fixture(scope="module")
def module_processes() -> Iterator[Processes]:
    """Processes that are ended with the module."""
    with Processes() as started:
        yield started


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Processes that are ended with the test."""
    with Processes() as started:
        yield started
