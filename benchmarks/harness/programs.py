"""Programs of the distribution that compute until they are ended, and compilers' products that do."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]

_PYTHON = "import json\nd = {str(n): [n] * 20 for n in range(200)}\nwhile 1: json.loads(json.dumps(d))"
_PERL = "my %h; while (1) { for my $i (1..1000) { $h{$i} = 'x' if $i % 7 == 0; } }"
_NODE = "let o; while (1) { o = JSON.parse(JSON.stringify({a: [1, 2, {b: 'x'.repeat(50)}]})); o.a.sort(); }"
_SQL = (
    "create table t as with recursive c(x) as (select 1 union all select x + 1 from c where x < 2000000000) "
    "select count(*), max(printf('%d', x)) from c;"
)
_CPP = r"""
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>
static int descend(int depth, const std::string &text) {
	if (!depth) throw std::runtime_error(text);
	std::vector<int> v(20);
	std::generate(v.begin(), v.end(), [&] { return depth; });
	std::sort(v.begin(), v.end());
	return descend(depth - 1, text) + v[0];
}
int main() {
	for (volatile long caught = 0;;)
		try { descend(20, "a text that is too long to lie in the string itself"); }
		catch (const std::exception &e) { caught = caught + e.what()[0]; }
}
"""
_RUST = """
use std::collections::HashMap;
fn main() {
    let mut sum = 0;
    loop {
        let map: HashMap<String, u32> = (0..1000).map(|n| (format!("k{n}"), n)).collect();
        let mut sorted: Vec<_> = map.iter().collect();
        sorted.sort();
        sum += sorted.len();
        if sum == 1 { return; }
    }
}
"""
_GO = """
package main
import ("fmt"; "sort")
func main() {
	for {
		m := map[string]int{}
		for i := 0; i < 1000; i++ { m[fmt.Sprint(i)] = i }
		keys := make([]string, 0, len(m))
		for k := range m { keys = append(keys, k) }
		sort.Strings(keys)
	}
}
"""
_JAVA = """
import java.util.*;
public class Load {
    static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
    public static void main(String[] a) {
        for (long sum = 0;; sum += fib(20)) {
            Map<String, Integer> m = new HashMap<>();
            for (int i = 0; i < 1000; i++) m.put("k" + i, i);
        }
    }
}
"""


_NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }}
}}
"""
# Keeps 20 requests under way on one connection; waits until the server listens.
_HTTP_CLIENT = """
import socket, sys
request = b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" * 20
while True:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
            while True:
                connection.sendall(request)
                if not connection.recv(65536):
                    break
    except OSError:
        pass
"""


def endless_programs(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each program that is there; compiled ones are made in ``directory``."""
    for name, program, arguments in (
        ("python3 of the distribution", "/usr/bin/python3", ["-c", _PYTHON]),
        ("python3 that runs this", sys.executable, ["-c", _PYTHON]),
        ("git", "sh", ["-c", f"while :; do git -C {_CHECKOUT} log -p -n 300 >/dev/null; done"]),
        ("perl", "perl", ["-e", _PERL]),
        ("sqlite3", "sqlite3", [":memory:", _SQL]),
        ("node", "node", ["-e", _NODE]),
    ):
        if path := shutil.which(program):
            yield name, [path, *arguments]
    for name, source, text, compiler in (
        ("C++ exceptions", "load.cpp", _CPP, ["g++", "-O2", "-o", "{out}", "{in}"]),
        ("C++ 32-bit", "load32.cpp", _CPP, ["g++", "-m32", "-O2", "-o", "{out}", "{in}"]),
        ("Rust", "load.rs", _RUST, ["rustc", "-O", "-o", "{out}", "{in}"]),
        ("Go", "load.go", _GO, ["go", "build", "-o", "{out}", "{in}"]),
    ):
        if program := _compiled(directory / source, text, compiler):
            yield name, [str(program)]
    if java := shutil.which("java"):
        source = directory / "Load.java"
        source.write_text(_JAVA)
        yield "Java, frame pointers", [java, "-XX:+PreserveFramePointer", str(source)]


@contextmanager
def busy_servers(directory: Path) -> Iterator[list[tuple[str, int]]]:
    """Name and process ID of each server that is there, each kept busy by a client until the end."""
    started: list[subprocess.Popen[bytes]] = []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(*command: str) -> int:
        started.append(subprocess.Popen(command, **quiet))  # type: ignore[call-overload]
        return int(started[-1].pid)

    servers: list[tuple[str, int]] = []
    try:
        if shutil.which("redis-server"):
            port = str(_free_port())
            servers.append(("redis", start("redis-server", "--port", port, "--save", "")))
            start("redis-benchmark", "-p", port, "-l", "-q", "-t", "set,get,lpush,lrange_300", "-P", "4")
        if shutil.which("nginx"):
            port = str(_free_port())
            conf = directory / "nginx.conf"
            conf.write_text(_NGINX.format(directory=directory, port=port))
            servers.append(("nginx", start("nginx", "-p", str(directory), "-c", str(conf))))
            start(sys.executable, "-c", _HTTP_CLIENT, port)
        yield servers
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _compiled(source: Path, text: str, compiler: list[str]) -> Path | None:
    source.write_text(text)
    out = source.with_suffix(".out")
    command = [word.format_map({"in": source, "out": out}) for word in compiler]
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, check=False, cwd=source.parent)
    return out if done.returncode == 0 else None
