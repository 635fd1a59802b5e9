"""What frames, processes and containers are called, in one place, so that all views agree."""

from __future__ import annotations

from collections.abc import Sequence

from sberf.errors import RecordingError
from sberf.recording.recording import Recording
from sberf.recording.schema import STACK_ENDS

# Bracketed paths ([kernel]) and paths without a last component are their own base name.
_NAMED_MODULES = """
    SELECT module_id, path, kind,
           CASE WHEN path = '' THEN '[unknown]'
                WHEN path[1] = '[' THEN path
                ELSE coalesce(nullif(split_part(path, '/', -1), ''), path) END AS module
    FROM modules"""

# A sample without a stack has one frame that says why; these follow the real ones in number.
_REASONS = (*STACK_ENDS, "unknown")
_FRAMES = "(SELECT count(*) FROM frames)"
_REASON_CASES = " ".join(f"WHEN '{end}' THEN {number}" for number, end in enumerate(STACK_ENDS))
_REASON_NUMBER = f'CASE s."end" {_REASON_CASES} ELSE {len(STACK_ENDS)} END'
_REASON_NAMES = ", ".join(f"({n}, '[no stack: {reason}]')" for n, reason in enumerate(_REASONS))

# A frame without a symbol is module+0xoffset: never blank, never a neighbour's name.
_NAMED_FRAMES = f"""
    SELECT f.frame_id::BIGINT AS frame_id, f.address, f.file, f.line, f.inlined_in IS NOT NULL AS inlined,
           coalesce(m.path, '[unknown]') AS path, coalesce(m.kind, 'unknown') AS kind,
           coalesce(m.module, '[unknown]') AS module, f.file || ':' || f.line AS source_line,
           coalesce(nullif(f.{{name}}, ''),
                    coalesce(m.module, '[unknown]') || printf('+0x%x', f.address)) AS name
    FROM frames f LEFT JOIN ({_NAMED_MODULES}) m USING (module_id)
    UNION ALL
    SELECT {_FRAMES} + number, 0, NULL, NULL, false, '[unknown]', 'unknown', '[unknown]', NULL, name
    FROM (VALUES {_REASON_NAMES}) reasons(number, name)"""


def named_frames(demangle: bool) -> str:
    """SQL: what is known of every frame.

    Its columns: frame_id, address, file, line, inlined, path, kind, module (base name), source_line, name.

    Args:
        demangle: Whether names are readable, or as the linker knows them.
    """
    return _NAMED_FRAMES.format(name="function" if demangle else "symbol")


# For each frame the calls at its address, innermost first, itself last, in one list: see `number_functions`.
_CALLS = f"""
    WITH RECURSIVE inlined(frame_id, address_frame_id, depth) AS (
        SELECT call.frame_id, call.inlined_in, 1
        FROM frames call JOIN frames f ON call.inlined_in = f.frame_id WHERE f.inlined_in IS NULL
        UNION ALL
        SELECT call.frame_id, address_frame_id, depth + 1
        FROM frames call JOIN inlined ON call.inlined_in = inlined.frame_id),
    calls AS (
        SELECT address_frame_id AS id, list(frame_id ORDER BY depth DESC) AS frame_ids
        FROM inlined GROUP BY id)
    SELECT list(list_append(coalesce(frame_ids, []), id::UINTEGER) ORDER BY id) AS calls
    FROM (SELECT unnest(range({_FRAMES})) AS id) LEFT JOIN calls USING (id)"""


def named_stacks(recording: Recording, inlines: bool) -> str:
    """SQL: stack_id, end and frame_ids (leaf first, never empty) of every stack.

    Args:
        recording: The recording.
        inlines: Whether inlined calls are frames of their own.
    """
    frame_ids, source = "s.frame_ids", "stacks s"
    if inlines and recording.rows("SELECT 1 FROM frames WHERE inlined_in IS NOT NULL LIMIT 1"):
        recording.rows(f"CREATE TEMP TABLE IF NOT EXISTS frame_calls AS {_CALLS}")
        frame_ids = "flatten([calls[frame_id + 1] FOR frame_id IN s.frame_ids])"
        source = "stacks s, frame_calls"
    return f"""
        SELECT s.stack_id, s."end",
               CASE WHEN len(s.frame_ids) > 0 THEN {frame_ids}
                    ELSE [({_FRAMES} + {_REASON_NUMBER})::UINTEGER] END AS frame_ids
        FROM {source}"""


LOST_STACK = f"""[({_FRAMES} + {STACK_ENDS.index("lost")})::UINTEGER]"""
"""The frame_ids of a sample whose stack the table lacks: a damaged recording."""


_CONTAINER = "coalesce(p.container_name, left(p.container, 12))"

CONTAINER_NAME = f"CASE WHEN p.process_id IS NOT NULL THEN coalesce({_CONTAINER}, '[host]') END"
"""Of the container of process ``p``: its name, else its ID shortened as docker does."""

PROCESS_NAME = f"coalesce({_CONTAINER} || ':', '') || p.comm"
"""The name of process ``p``, with that of the container that it is in."""


def number_functions(
    recording: Recording, demangle: bool, keys: Sequence[str], values: Sequence[str] = ()
) -> None:
    """Make the temporary tables ``functions`` and ``function_numbers`` for the stacks in ``hit_stacks``.

    ``functions`` has a row for each distinct combination of ``keys``: function_number (dense from 0),
    the keys and the values.  ``function_numbers`` has one row with one list, of which element
    frame_id + 1 is the function's number: looking a number up in a list is several times faster
    than a join, and grouping by numbers is than by names.

    Args:
        recording: The recording.
        demangle: Whether names are readable, or as the linker knows them.
        keys: What makes a function distinct, as SQL over :func:`named_frames`: ``EXPRESSION AS name``.
        values: What else to know about it, as SQL aggregates.

    Raises:
        RecordingError: Stacks have frames that the recording lacks.
    """
    columns = "".join(f"{column}, " for column in (*keys, *values))
    positions = ", ".join(map(str, range(1, len(keys) + 1)))
    recording.rows(
        """
        CREATE OR REPLACE TEMP TABLE hit_frames AS
        SELECT DISTINCT unnest(frame_ids) AS frame_id FROM hit_stacks"""
    )
    recording.rows(
        f"""
        CREATE OR REPLACE TEMP TABLE functions AS
        SELECT row_number() OVER () - 1 AS function_number, * FROM (
            SELECT {columns} list(frame_id) AS frame_ids
            FROM ({named_frames(demangle)}) JOIN hit_frames USING (frame_id)
            GROUP BY {positions} ORDER BY {positions})"""
    )
    recording.rows(
        """
        CREATE OR REPLACE TEMP TABLE function_numbers AS
        SELECT list(function_number ORDER BY id) AS numbers
        FROM (SELECT unnest(range((SELECT max(frame_id) + 1 FROM hit_frames))) AS id)
        LEFT JOIN (SELECT function_number, unnest(frame_ids) AS id FROM functions) USING (id)"""
    )
    _check_complete(recording)


def _check_complete(recording: Recording) -> None:
    named = "SELECT unnest(frame_ids) FROM functions"
    missing = recording.rows(f"SELECT frame_id FROM hit_frames WHERE frame_id NOT IN ({named}) LIMIT 1")
    if missing:
        raise RecordingError(f"table 'stacks' refers to frame {missing[0][0]}, which table 'frames' lacks")
