"""The tables of a recording: the one description that readers, docs and tests share.

The Rust writer (native/src/finalize/tables.rs) follows it; a kernel test compares the two.
Times are CLOCK_MONOTONIC nanoseconds.  Text from the traced system that is not UTF-8 is kept
with ``\\xNN`` escapes.
"""

from __future__ import annotations

from dataclasses import dataclass

FORMAT_NAME = "sberf-recording"
FORMAT_MAJOR = 1
FORMAT_MINOR = 2

MODULE_KINDS = ("kernel", "kernel_module", "bpf", "elf", "vdso", "jit", "anon", "unknown")

# The ends that can leave a stack without frames, and the others.
EMPTY_STACK_ENDS = ("no_registers", "kernel_thread", "not_asked", "scratch_busy", "lost")
_TABLE_ENDS = ("no_table", "unsupported_rule", "table_pending", "table_refused", "not_code")
STACK_ENDS = ("entry", "depth_limit", "unreadable", "bad_frame_pointer", *_TABLE_ENDS, *EMPTY_STACK_ENDS)


@dataclass(frozen=True)
class Column:
    """One column: its name, DuckDB type, whether it may be NULL, and what it means."""

    name: str
    type: str
    nullable: bool
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table: its name, what a row is, and its columns in file order."""

    name: str
    row: str
    columns: tuple[Column, ...]


def _column(name: str, type_: str, meaning: str) -> Column:
    nullable = type_.endswith("?")
    return Column(name, type_.rstrip("?"), nullable, meaning)


PROCESSES = Table(
    "processes",
    "one process running one program: a reused PID and an exec each start a new row",
    (
        _column("process_id", "UINTEGER", "key, dense from 0"),
        _column("pid", "INTEGER", "process ID on the host"),
        _column("ns_pid", "INTEGER?", "process ID in its own PID namespace"),
        _column("parent_process_id", "UINTEGER?", "the process that forked it"),
        _column("exec_from_process_id", "UINTEGER?", "the row that this one replaced by exec"),
        _column("uid", "UINTEGER?", "real user ID"),
        _column("comm", "VARCHAR", "the kernel's short name, the last one it had"),
        _column("exe", "VARCHAR?", "path of the executable"),
        _column("cmdline", "VARCHAR?", "arguments, quoted as for a shell"),
        _column("container", "VARCHAR?", "ID of the container it is in, from its cgroup; NULL: in none"),
        _column("container_name", "VARCHAR?", "what the container's runtime calls it"),
        _column("start_ns", "BIGINT?", "fork or exec; before the recording for older processes"),
        _column("end_ns", "BIGINT?", "exit or the next exec; NULL: alive at the end"),
        _column("exit_code", "INTEGER?", "exit status where known; a signal N is -N"),
    ),
)

THREADS = Table(
    "threads",
    "one thread of one process row",
    (
        _column("thread_id", "UINTEGER", "key, dense from 0"),
        _column("process_id", "UINTEGER", "processes.process_id"),
        _column("tid", "INTEGER", "thread ID on the host"),
        _column("comm", "VARCHAR", "the thread's name, the last one it had"),
        _column("start_ns", "BIGINT?", "creation; NULL: before the recording, not known"),
        _column("end_ns", "BIGINT?", "exit; NULL: alive at the end"),
    ),
)

MODULES = Table(
    "modules",
    "one file that was mapped as code, the kernel, or an area of generated code",
    (
        _column("module_id", "UINTEGER", "key, dense from 0"),
        _column("path", "VARCHAR", "file path, or a name in [brackets]"),
        _column("build_id", "VARCHAR?", "GNU build-id, lower-case hex"),
        _column("kind", "VARCHAR", f"one of {', '.join(MODULE_KINDS)}"),
        _column(
            "symbols",
            "VARCHAR",
            "where names came from: symtab, dynsym, gnu_debugdata, dwarf, kallsyms, jitdump, perf-map, "
            "or 'none: ' and the reason",
        ),
        _column(
            "debug_file",
            "VARCHAR?",
            "where inlined calls, source lines and symbols that the file itself lacks came from",
        ),
    ),
)

FRAMES = Table(
    "frames",
    "one address in a module, or one inlined call in it",
    (
        _column("frame_id", "UINTEGER", "key, dense from 0"),
        _column("module_id", "UINTEGER", "modules.module_id"),
        _column(
            "address",
            "UBIGINT",
            "file offset (elf, vdso), offset from _text (kernel), else the address itself",
        ),
        _column(
            "is_return",
            "BOOLEAN",
            "the address is one to return to: the frame is named after the call before it",
        ),
        _column(
            "linked_address", "UBIGINT?", "the address as in the file's symbol table and debug information"
        ),
        _column("function", "VARCHAR?", "demangled name; NULL: no symbol covers the address"),
        _column("symbol", "VARCHAR?", "the name as in the symbol table"),
        _column("file", "VARCHAR?", "source file"),
        _column("line", "UINTEGER?", "source line"),
        _column("inlined_in", "UINTEGER?", "the frame that this inlined call lies in"),
    ),
)

STACKS = Table(
    "stacks",
    "one distinct stack",
    (
        _column("stack_id", "UBIGINT", "key: a hash of the frames' modules and offsets and the end"),
        _column("frame_ids", "UINTEGER[]", "frames.frame_id, leaf first; empty: no stack"),
        _column("end", "VARCHAR", f"how the stack ended: {', '.join(STACK_ENDS)}"),
    ),
)

SAMPLES = Table(
    "samples",
    "one sample of an event, ordered by time",
    (
        _column("ts_ns", "BIGINT", "when"),
        _column("cpu", "USMALLINT", "on which CPU"),
        _column("thread_id", "UINTEGER", "threads.thread_id"),
        _column("event", "VARCHAR", "the event's name, such as cpu-clock"),
        _column("stack_id", "UBIGINT", "stacks.stack_id"),
        _column("weight", "UBIGINT", "what the sample stands for, in the event's unit (ns for clocks)"),
    ),
)

TABLES: tuple[Table, ...] = (PROCESSES, THREADS, MODULES, FRAMES, STACKS, SAMPLES)
