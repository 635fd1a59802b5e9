"""Programs of the distribution that compute until they are ended, and compilers' products that do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


def endless_programs(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each program that is there; compiled ones are made in ``directory``."""
    for name, program, arguments in (
        ("python3", "/usr/bin/python3", ["-c", _PYTHON]),
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


def _compiled(source: Path, text: str, compiler: list[str]) -> Path | None:
    source.write_text(text)
    out = source.with_suffix(".out")
    command = [word.format_map({"in": source, "out": out}) for word in compiler]
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, check=False, cwd=source.parent)
    return out if done.returncode == 0 else None
