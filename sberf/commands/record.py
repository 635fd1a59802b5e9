"""``sberf record``: capture samples into a recording."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sberf.errors import UsageError
from sberf.units import format_bytes, format_count, parse_duration_ns, parse_size_bytes, plural

if TYPE_CHECKING:
    from sberf.capture.events import Event
    from sberf.capture.options import Options
    from sberf.capture.session import Session
    from sberf.capture.targets import Target

HELP = "record what runs, into sberf.data"

_EPILOG = """\
examples:
  sudo sberf record -a -d 10              all processes, 10 seconds
  sudo sberf record -p 812,913 -F 999     two processes until Ctrl-C, 999 samples a second
  sudo sberf record --container web       a container, by its name or ID, until it ends
  sudo sberf record -- make -j4           a command and its children
  sudo sberf record -e page-faults -c 1 -p 812

The recording belongs to the user behind sudo.  `sberf report` and `sberf flame` show it."""

_LIVE_INTERVAL_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sberf record``."""
    parser.description = "Sample what runs, with stacks, until Ctrl-C, the duration or the command's end."
    parser.epilog = _EPILOG
    _add_targets(parser.add_argument_group("what to record"))
    _add_events(parser.add_argument_group("which samples to take"))
    other = parser.add_argument_group("when and where to")
    other.add_argument("-d", "--duration", metavar="TIME", type=_duration, help="end after so many seconds")
    other.add_argument(
        "-D",
        "--delay",
        metavar="TIME",
        type=_delay,
        default=0,
        help="begin so long after the start: milliseconds as with perf, or with a unit: 2s",
    )
    other.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("sberf.data"),
        help="the recording (default: sberf.data; an older one becomes sberf.data.old)",
    )
    other.add_argument(
        "--buffer",
        metavar="SIZE",
        type=_size,
        help="all ring buffers together, such as 32M (default: 2M a CPU, 8M to 64M)",
    )
    other.add_argument("-q", "--quiet", action="store_true", help="print only errors and losses")


def run(args: argparse.Namespace) -> int:
    """Record, and return the command's exit status, or 0."""
    target = _target(args)
    options = _options(args, target)
    from sberf.capture.session import Session

    session = Session(options)
    live = sys.stderr.isatty() and not args.quiet
    if live:
        _say(_beginning(options))
    meta = session.run(_LiveLine(), _LIVE_INTERVAL_S) if live else session.run()
    _report(session, meta, args.quiet)
    return _exit_status(session)


def _add_targets(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "what",
        nargs="*",
        metavar="PID | COMMAND",
        help="a process ID, or a command and its arguments after --",
    )
    group.add_argument("-a", "--all-cpus", action="store_true", help="all processes")
    group.add_argument(
        "-p",
        "--pid",
        metavar="PID,...",
        type=_ids,
        action="extend",
        default=[],
        help="processes: all their threads and future children",
    )
    group.add_argument("--tid", metavar="TID,...", type=_ids, action="extend", default=[], help="threads")
    group.add_argument("-C", "--cpu", metavar="CPUS", help="all processes on these CPUs, such as 0-3,7")
    group.add_argument("--cgroup", metavar="PATH", help="the processes in a cgroup and below it")
    group.add_argument(
        "--container",
        metavar="NAME,...",
        type=_words,
        action="extend",
        default=[],
        help="containers: a name, an ID, or at least 4 digits that an ID begins with",
    )
    group.add_argument("--no-inherit", action="store_true", help="leave out new child processes")


def _add_events(group: argparse._ArgumentGroup) -> None:
    rate = group.add_mutually_exclusive_group()
    rate.add_argument("-F", "-f", "--freq", metavar="HZ", type=int, help="samples a second (default: 99)")
    rate.add_argument(
        "-c",
        "--count",
        metavar="PERIOD",
        type=int,
        help="one sample each so many events (nanoseconds for clocks)",
    )
    group.add_argument("--clamp", action="store_true", help="accept the kernel's cap on the frequency")
    group.add_argument(
        "-e",
        "--event",
        metavar="EVENT,...",
        default="cpu-clock",
        help="events with perf's names and modifiers (default: cpu-clock)",
    )
    mode = group.add_mutually_exclusive_group()
    mode.add_argument("--user", action="store_true", help="only user mode and user stacks")
    mode.add_argument("--kernel", action="store_true", help="only kernel mode and kernel stacks")
    group.add_argument("--idle", action="store_true", help="sample idle CPUs too")
    group.add_argument(
        "--max-depth",
        metavar="N",
        type=int,
        default=127,
        help="frames of a stack at most (default: 127, up to 1024 in user mode)",
    )
    group.add_argument(
        "--call-graph",
        choices=("tables", "fp"),
        default="tables",
        help="how user stacks are unwound: by each file's call frames (default), or by frame pointer alone",
    )


def _target(args: argparse.Namespace) -> Target:
    from sberf.capture.targets import make_target, parse_cpus

    pids, argv = list(args.pid), list(args.what)
    if len(argv) == 1 and all(part.isdecimal() for part in argv[0].split(",")):
        pids += [int(part) for part in argv.pop().split(",")]
    return make_target(
        everything=args.all_cpus,
        pids=tuple(dict.fromkeys(pids)),
        tids=tuple(dict.fromkeys(args.tid)),
        cpus=tuple(parse_cpus(args.cpu)) if args.cpu else (),
        cgroup=args.cgroup,
        containers=tuple(dict.fromkeys(args.container)),
        argv=tuple(argv),
        inherit=not args.no_inherit,
    )


def _options(args: argparse.Namespace, target: Target) -> Options:
    from sberf.capture.options import Options

    return Options(
        target=target,
        events=_events(args),
        output=args.output,
        duration_ns=args.duration,
        delay_ns=args.delay,
        max_depth=args.max_depth,
        use_tables=args.call_graph == "tables",
        buffer_bytes=args.buffer,
    )


def _events(args: argparse.Namespace) -> tuple[Event, ...]:
    from sberf.capture.events import fall_back, parse_events
    from sberf.capture.options import DEFAULT_FREQUENCY_HZ, check_frequency

    if args.count is not None and args.count < 1:
        raise UsageError(f"a period of {args.count} takes no samples")
    frequency_hz = None
    if args.count is None:
        asked = DEFAULT_FREQUENCY_HZ if args.freq is None else args.freq
        frequency_hz = check_frequency(asked, clamp=args.clamp)
        if frequency_hz != asked:
            _say(f"taking {frequency_hz} Hz, the kernel's cap, instead of {asked} Hz")
    events = parse_events(
        args.event,
        frequency_hz=frequency_hz,
        period=args.count,
        user_only=args.user,
        kernel_only=args.kernel,
        idle=args.idle,
    )
    return tuple(fall_back(event, _say) for event in events)


class _LiveLine:
    """One line on the terminal that is written over and over."""

    def __call__(self, stats: Any, elapsed_s: float) -> None:
        line = (
            f"{elapsed_s:6.1f} s  {plural(stats.samples, 'sample')}  {plural(stats.processes, 'process')}  "
            f"{format_count(stats.lost)} lost  buffer {stats.fill_percent}%  "
            f"{format_bytes(stats.written_bytes)}"
        )
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)


def _report(session: Session, meta: dict[str, Any], quiet: bool) -> None:
    """What was written, what was lost, and what to do about it."""
    from sberf.capture.summary import losses, written

    if sys.stderr.isatty() and not quiet:
        print("\r\x1b[K", end="", file=sys.stderr)
    if not quiet:
        _say(written(session.options.output, meta, session.stats()))
    for line in losses(meta, session.options.ring_bytes):
        _say(line)
    if not quiet and session.exit_code not in (None, 0):
        _say(f"the command ended with exit status {_exit_status(session)}")


def _beginning(options: Options) -> str:
    rates = (
        f"at {event.frequency_hz} Hz" if event.frequency_hz else f"every {event.period}"
        for event in options.events
    )
    events = ", ".join(f"{event.event} {rate}" for event, rate in zip(options.events, rates, strict=True))
    end = "Ctrl-C ends it" if options.duration_ns is None else f"for {options.duration_ns / 1e9:g} s"
    return f"recording {events}; {end}"


def _exit_status(session: Session) -> int:
    """As a shell gives it: 128 + N for a command that signal N killed."""
    code = session.exit_code or 0
    return code if code >= 0 else 128 - code


def _say(message: str) -> None:
    from sberf.views.text import printable

    print(f"sberf: {printable(message)}", file=sys.stderr)


def _ids(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of IDs, such as 812,913")
    return [int(part) for part in parts]


def _words(text: str) -> list[str]:
    words = [word for word in text.split(",") if word]
    if not words:
        raise argparse.ArgumentTypeError("a name is missing")
    return words


def _duration(text: str) -> int:
    duration_ns = _parse(parse_duration_ns, text)
    if duration_ns <= 0:
        raise argparse.ArgumentTypeError("a duration of 0 records nothing")
    return duration_ns


def _delay(text: str) -> int:
    return _parse(lambda value: parse_duration_ns(value, default_unit="ms"), text)


def _size(text: str) -> int:
    return _parse(parse_size_bytes, text)


def _parse(parse: Any, text: str) -> int:
    try:
        return int(parse(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.hint}") from None
