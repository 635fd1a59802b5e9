"""Programs that nobody here wrote."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.kernel.harness import Live, Sample, names, read_samples, record, share
from tests.kernel.processes import Processes, wait_until
from tests.kernel.workloads import SOURCES

PYTHON_LOAD = """
import json
data = {str(n): [n] * 20 for n in range(200)}
for _ in range(400):
    json.loads(json.dumps(data))
"""
NODE_LOAD = """
function hotInTheLoop(n) { let x = 0; for (let i = 0; i < n; i++) x = (x * 31 + i) % 1000003; return x; }
const end = Date.now() + 4000;
let sum = 0;
while (Date.now() < end) sum += hotInTheLoop(1e6);
process.exitCode = sum > 0 ? 0 : 1;
"""


def needs(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def weights(samples: Iterable[Sample]) -> Counter[str]:
    """Weight by the function that ran."""
    counted: Counter[str] = Counter()
    for sample in samples:
        leaf = sample.frames[0] if sample.frames else None
        counted[(leaf.function if leaf else None) or "-"] += sample.weight
    return counted


MAKEFILE = """
UNITS = $(shell seq 40)
lib.a: $(UNITS:%=unit%.o)
	ar rcs $@ $^
unit%.c: generate
	./generate $* > $@
%.o: %.c
	gcc -O1 -c $< -o $@
generate: generate.o
	gcc -o $@ $^ -lrt
.PRECIOUS: unit%.c
"""


def test_a_gcc_build(tmp_path: Path) -> None:
    """Many short processes: each has its own name, program, arguments and parents."""
    for name in ("generate.c", "workload.h"):
        shutil.copy(SOURCES / name, tmp_path)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    recording = record(tmp_path / "build.data", "-F", "4999", "--", "make", "-s", "-C", tmp_path, "-j2")
    samples = read_samples(recording)
    assert {"make", "gcc", "cc1", "as"} <= {sample.comm for sample in samples}
    for sample in samples:
        # No frame of one program in another: cc1's code is only ever in cc1.
        if any(Path(frame.module).name == "cc1" for frame in sample.frames):
            assert sample.comm == "cc1"
    compilers = recording.rows("SELECT cmdline, exe, end_ns FROM processes WHERE comm = 'cc1'")
    assert len(compilers) == 41
    for cmdline, exe, end_ns in compilers:
        assert "unit" in cmdline or "generate" in cmdline
        assert exe.endswith("/cc1")
        assert end_ns is not None
    parents = recording.rows(
        """SELECT DISTINCT p.comm FROM processes c JOIN processes p ON p.process_id = c.parent_process_id
           WHERE c.comm = 'cc1'"""
    )
    assert parents == [("gcc",)]
    named = [frame for sample in samples for frame in sample.frames if frame.symbols == "kallsyms"]
    assert all(frame.function for frame in named)
    exited = read_samples(recording, "p.end_ns IS NOT NULL")
    _check_names_of_the_exited([sample for sample in exited if sample.in_user_mode])


def _check_names_of_the_exited(in_user: list[Sample]) -> None:
    """Each lies in a known file, and has a name where the file has a symbol table."""
    assert share(in_user, lambda sample: sample.frames[0].kind in ("elf", "vdso")) >= 0.995
    with_table = [sample for sample in in_user if sample.frames[0].symbols == "symtab"]
    assert sum(sample.has("generate") for sample in with_table) > 1000
    assert share(with_table, lambda sample: sample.functions[0] is not None) >= 0.995


def test_python(tmp_path: Path) -> None:
    recording = record(tmp_path / "python.data", "-F", "2000", "--", sys.executable, "-c", PYTHON_LOAD)
    samples = read_samples(recording)
    modules = {Path(frame.module).name for sample in samples for frame in sample.frames}
    assert any(name.startswith(("_json", "libpython", "python3")) for name in modules)
    assert any(sample.has("_PyEval_EvalFrameDefault") for sample in samples)


def test_node_with_a_perf_map(tmp_path: Path) -> None:
    node = needs("node")
    recording = record(
        tmp_path / "node.data", "-F", "999", "--", node, "--perf-basic-prof", "-e", NODE_LOAD, cwd=tmp_path
    )
    samples = read_samples(recording)
    jit = [name for name in names(samples) if "hotInTheLoop" in name]
    assert jit, weights(samples).most_common(5)
    kinds = {frame.kind for sample in samples for frame in sample.frames if frame.function in jit}
    assert kinds == {"jit"}
    in_loop = sum(s.weight for s in samples if any("hotInTheLoop" in (f or "") for f in s.functions))
    assert in_loop > 0.5 * sum(sample.weight for sample in samples)
    for (pid,) in recording.rows("SELECT DISTINCT pid FROM processes"):
        Path(f"/tmp/perf-{pid}.map").unlink(missing_ok=True)


def test_redis_under_load(processes: Processes, tmp_path: Path) -> None:
    server, benchmark, port = needs("redis-server"), needs("redis-benchmark"), free_port()
    arguments = ("--port", str(port), "--save", "", "--dir", tmp_path)
    redis = processes.start(server, *arguments, stdout=subprocess.DEVNULL)
    wait_until(lambda: answers(port), "redis to listen")
    live = processes.add(Live(tmp_path / "redis.data", "-p", str(redis.pid), "-F", "999"))
    live.wait_for(r"samples")
    load = [benchmark, "-p", str(port), "-n", "100000", "-q", "-t", "set,get"]
    subprocess.run(load, check=True, stdout=subprocess.DEVNULL, timeout=120)
    samples = read_samples(live.finish())
    assert {sample.pid for sample in samples} == {redis.pid}
    assert {sample.comm for sample in samples} == {"redis-server"}
    in_kernel = [sample for sample in samples if not sample.in_user_mode]
    assert any("tcp" in name for name in names(in_kernel)), "a server on TCP spends time there"


def test_nginx_under_load(processes: Processes, tmp_path: Path) -> None:
    nginx, port = needs("nginx"), free_port()
    (tmp_path / "index.html").write_text("x" * 4096)
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o755)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;\n"
        f"fastcgi_temp_path {tmp_path}/fastcgi; uwsgi_temp_path {tmp_path}/uwsgi;\n"
        f"scgi_temp_path {tmp_path}/scgi;\n"
        f"server {{ listen 127.0.0.1:{port}; root {tmp_path}; }} }}\n"
    )
    processes.start(nginx, "-e", "stderr", "-c", configuration, "-p", tmp_path, stderr=subprocess.DEVNULL)
    wait_until(lambda: answers(port), "nginx to listen")
    live = processes.add(Live(tmp_path / "nginx.data", "-a", "-F", "999"))
    live.wait_for_samples()
    client = (
        f"import http.client\nc = http.client.HTTPConnection('127.0.0.1', {port})\n"
        "for _ in range(8000):\n    c.request('GET', '/'); assert len(c.getresponse().read()) == 4096\n"
    )
    subprocess.run([sys.executable, "-c", client], check=True, timeout=120)
    samples = [sample for sample in read_samples(live.finish()) if sample.comm == "nginx"]
    assert samples
    assert any(Path(frame.module).name == "nginx" for sample in samples for frame in sample.frames)


def test_the_kernel_and_the_vdso_have_names(tmp_path: Path) -> None:
    reading = "import os\nfd = os.open('/dev/zero', os.O_RDONLY)\nfor _ in range(60000): os.read(fd, 65536)"
    samples = read_samples(
        record(tmp_path / "kernel.data", "-F", "2000", "--", sys.executable, "-c", reading)
    )
    in_kernel = [sample for sample in samples if not sample.in_user_mode]
    assert len(in_kernel) > 0.5 * len(samples)
    kernel_frames = [frame for sample in in_kernel for frame in sample.frames if frame.kind == "kernel"]
    unnamed = [frame for frame in kernel_frames if frame.function is None]
    assert len(unnamed) <= 0.001 * len(kernel_frames)
    assert any("read" in name for name in names(in_kernel))
    assert os.uname().release == sys_release(tmp_path / "kernel.data")


def sys_release(output: Path) -> str:
    import sberf

    with sberf.open(output) as recording:
        return str(recording.meta["host"]["kernel"])
