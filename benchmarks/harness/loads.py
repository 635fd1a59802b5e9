"""Loads: an amount of work to time, or the same again and again in the background."""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

_SOURCES = Path(__file__).resolve().parent.parent / "loads"
_SERVER_START_S = 30.0


class LoadMissing(Exception):
    """What the load needs is not installed; the message names it."""


class Load:
    """A load, as a context manager that sets it up and takes it down.

    Args:
        directory: Where its files go.
        scale: The amount of work of :meth:`run`; 1 takes some seconds.
    """

    name: str
    what: str

    def __init__(self, directory: Path, scale: float = 1.0) -> None:
        self.directory = directory
        self.scale = scale
        self._stack = ExitStack()

    def __enter__(self) -> Load:
        try:
            self.prepare()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Set the load up."""

    def run(self) -> float:
        """Do the work once; return the seconds that it took."""
        raise NotImplementedError

    def cpu_s(self) -> float:
        """CPU time of the work's processes that have ended so far, seconds."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    @contextmanager
    def background(self) -> Iterator[None]:
        """The load goes on without end inside the block."""
        raise NotImplementedError


@dataclass(frozen=True)
class Split:
    """What the known load says of itself: its time, and the CPU time of its two functions."""

    pid: int
    elapsed_s: float
    seventy_ns: int
    thirty_ns: int

    @property
    def share(self) -> float:
        """Of ``seventy`` in both, by the load's own CPU clock."""
        return self.seventy_ns / (self.seventy_ns + self.thirty_ns)


class FullLoad(Load):
    """One busy process of known structure on each CPU; the time is that of the slowest."""

    name = "full load"
    what = "one busy process of known structure for each CPU"

    def __init__(self, directory: Path, scale: float = 1.0, *, cpus: int | None = None) -> None:
        """``cpus``: on so many CPUs only."""
        super().__init__(directory, scale)
        self.cpus = sorted(os.sched_getaffinity(0))[:cpus]

    def prepare(self) -> None:
        """Compile the program."""
        self.program = self.directory / "known"
        options = ["-O2", "-no-pie", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]
        _run(["gcc", *options, "-o", self.program, _SOURCES / "known.c"])

    def run(self) -> float:
        """Do the work once; return the seconds that it took."""
        with _ended(self._start("rounds", 30000 * self.scale)) as processes:
            return max(_split(process).elapsed_s for process in processes)

    def function_at(self, address: int) -> str:
        """The program's own function at an address (it is not relocated)."""
        return next((name for begin, end, name in self._functions if begin <= address < end), "")

    @cached_property
    def _functions(self) -> list[tuple[int, int, str]]:
        text = subprocess.run(["nm", "-S", self.program], capture_output=True, text=True, check=True).stdout
        # 0000000000401240 0000000000000035 t seventy
        rows = re.findall(r"^(\w{16}) (\w{16}) [tT] (\w+)$", text, re.MULTILINE)
        return [(int(start, 16), int(start, 16) + int(size, 16), name) for start, size, name in rows]

    def split(self, seconds: float) -> Split:
        """Run one process for so long, and return what it says of itself."""
        with _ended([_start([self.program, "seconds", seconds])]) as (process,):
            return _split(process)

    @contextmanager
    def background(self) -> Iterator[None]:
        """The load goes on without end inside the block."""
        with _ended(self._start("seconds", 1e6)):
            yield

    def _start(self, unit: str, amount: float) -> list[subprocess.Popen[bytes]]:
        processes = []
        for cpu in self.cpus:
            process = _start([self.program, unit, amount])
            os.sched_setaffinity(process.pid, {cpu})
            processes.append(process)
        return processes


class Build(Load):
    """``make -j2`` of generated C files: many short processes, some of them of a program that the build
    itself makes."""

    name = "gcc build"
    what = "make -j2 of generated C files with gcc -O2, whose generator is built first"

    def run(self) -> float:
        """Do the work once; return the seconds that it took."""
        shutil.rmtree(self._tree, ignore_errors=True)
        self._tree.mkdir()
        started = time.monotonic()
        _run(self._make)
        return time.monotonic() - started

    @contextmanager
    def background(self) -> Iterator[None]:
        """The load goes on without end inside the block."""
        self._tree.mkdir(exist_ok=True)
        loop = 'while rm -f "$0"/* && "$@"; do :; done'
        with _ended([_start(["sh", "-ec", loop, self._tree, *self._make])]):
            yield

    @property
    def _tree(self) -> Path:
        return self.directory / "build"

    @property
    def _make(self) -> list[str | Path]:
        variables = [f"COUNT={max(2, round(24 * self.scale))}", f"SOURCE={_SOURCES / 'generate.c'}"]
        return ["make", "-s", "-j2", "-C", self._tree, "-f", _SOURCES / "build.mk", *variables]


class Pgbench(Load):
    """pgbench's read-only transactions against a private PostgreSQL server on a Unix socket."""

    name = "pgbench"
    what = "pgbench -S with 2 clients on a private PostgreSQL server's Unix socket"

    def prepare(self) -> None:
        """Make a database in a directory of an unprivileged user, since the server refuses root."""
        server, client = _pg_program("postgres"), _pg_program("pgbench")
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sberf-bench-")))
        self._as_user = _drop_root(home)
        self._client = [*self._as_user, client, "-h", home, "-U", "bench"]
        data = home / "db"
        initdb = [_pg_program("initdb"), "-D", data, "-U", "bench", "-A", "trust", "-N"]
        _run([*self._as_user, *initdb])
        options = [
            "-k",
            home,
            "-h",
            "",
            "-c",
            "fsync=off",
            "-c",
            "autovacuum=off",
            "-c",
            "shared_buffers=64MB",
        ]
        log = self._stack.enter_context((self.directory / "postgres.log").open("wb"))
        self._server = process = subprocess.Popen(
            _text([*self._as_user, server, "-D", data, *options]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._stack.callback(_shut_down, process)
        _until_connected(process, home)
        _run([*self._client, "-i", "-q", "-s", 5, "postgres"])
        self._until_idle()

    def run(self) -> float:
        """Do the work once; return the seconds that it took."""
        started = time.monotonic()
        _run([*self._client, "-n", "-S", "-c", 2, "-j", 1, "-t", round(40000 * self.scale), "postgres"])
        elapsed_s = time.monotonic() - started
        self._until_idle()
        return elapsed_s

    def cpu_s(self) -> float:
        """CPU time of pgbench and of the server processes that served it."""
        # proc(5): utime, stime, cutime and cstime are the fields 14 to 17, the name may hold blanks
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(") ")[2].split()
        return super().cpu_s() + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def _until_idle(self) -> None:
        """Wait until the server has reaped the processes that served the clients."""
        deadline = time.monotonic() + _SERVER_START_S
        serving = ["pgrep", "-P", str(self._server.pid), "-f", "bench postgres"]
        while subprocess.run(serving, stdout=subprocess.DEVNULL, check=False).returncode == 0:
            if time.monotonic() > deadline:
                raise LoadMissing("PostgreSQL's processes outlive their clients")
            time.sleep(0.01)

    @contextmanager
    def background(self) -> Iterator[None]:
        """The load goes on without end inside the block."""
        with _ended([_start([*self._client, "-n", "-S", "-c", 2, "-j", 1, "-T", 10**6, "postgres"])]):
            yield


LOADS: tuple[type[Load], ...] = (FullLoad, Build, Pgbench)


@contextmanager
def sleepers(count: int) -> Iterator[None]:
    """So many processes that only sleep are alive inside the block."""
    with _ended([_start(["sleep", "infinity"], group=False) for _ in range(count)]):
        yield


def _start(command: Sequence[object], *, group: bool = True) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _text(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if group else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0 if group else None,
    )


@contextmanager
def _ended(processes: list[subprocess.Popen[bytes]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes, and what they started, do not outlive the block."""
    try:
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                _kill(process)
        for process in processes:
            process.wait()
            if process.stdout:
                process.stdout.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if os.getpgid(process.pid) == process.pid:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _split(process: subprocess.Popen[bytes]) -> Split:
    assert process.stdout is not None
    line = process.stdout.read()
    process.wait()
    # 5.001234 3501234567 1498765432
    elapsed_s, seventy_ns, thirty_ns = line.split()
    return Split(process.pid, float(elapsed_s), int(seventy_ns), int(thirty_ns))


def _pg_program(name: str) -> str:
    # Debian keeps the server's programs out of PATH.
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[4]))
    found = str(installed[-1]) if installed else shutil.which(name)
    if not found:
        raise LoadMissing(f"PostgreSQL's {name} is not installed")
    return found


def _drop_root(home: Path) -> list[str]:
    """The prefix of commands that may not run as root; ``home`` is given to their user."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(home, user.pw_uid, user.pw_gid)
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    raise LoadMissing("there is no unprivileged user that could run PostgreSQL")


def _until_connected(server: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + _SERVER_START_S
    check = _text([_pg_program("pg_isready"), "-q", "-h", home])
    while subprocess.run(check, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise LoadMissing("the private PostgreSQL server did not start")
        time.sleep(0.1)


def _shut_down(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGINT)  # PostgreSQL's "fast" shutdown
    server.wait()


def _run(command: Sequence[object]) -> None:
    done = subprocess.run(_text(command), stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/")
    if done.returncode != 0:
        error = done.stderr.decode(errors="replace").strip()
        raise LoadMissing(f"{command[0]} failed with status {done.returncode}: {error}")


def _text(command: Sequence[object]) -> list[str]:
    return [str(part) for part in command]
