"""What frames are called: the SQL that every analysis shares, so that all views agree."""

from __future__ import annotations

# Bracketed paths ([kernel]) and paths without a last component are their own base name.
_NAMED_MODULES = """
    SELECT module_id, path, kind,
           CASE WHEN path = '' THEN '[unknown]'
                WHEN path[1] = '[' THEN path
                ELSE coalesce(nullif(split_part(path, '/', -1), ''), path) END AS module
    FROM modules"""

# A sample without a stack has one frame that says why.  Its number lies above all real ones.
_NO_STACK = """
    SELECT "end", 4294967296 + row_number() OVER (ORDER BY "end") AS frame_id
    FROM (SELECT "end" FROM stacks WHERE len(frame_ids) = 0 UNION SELECT 'lost')"""

# A frame without a symbol is module+0xoffset: never blank, never a neighbour's name.
NAMED_FRAMES = f"""
    SELECT f.frame_id::BIGINT AS frame_id, f.address, f.file, f.line, f.inlined_in IS NOT NULL AS inlined,
           coalesce(m.path, '[unknown]') AS path, coalesce(m.kind, 'unknown') AS kind,
           coalesce(m.module, '[unknown]') AS module,
           coalesce(nullif(f.function, ''),
                    coalesce(m.module, '[unknown]') || printf('+0x%x', f.address)) AS name
    FROM frames f LEFT JOIN ({_NAMED_MODULES}) m USING (module_id)
    UNION ALL
    SELECT frame_id, 0, NULL, NULL, false, '[unknown]', 'unknown', '[unknown]', '[no stack: ' || "end" || ']'
    FROM ({_NO_STACK})"""
"""frame_id, address, file, line, inlined, path, kind, module (base name) and name of every frame."""

ALL_STACKS = f"""
    SELECT s.stack_id, s."end",
           CASE WHEN len(s.frame_ids) > 0 THEN s.frame_ids::BIGINT[] ELSE [n.frame_id] END AS frame_ids
    FROM stacks s LEFT JOIN ({_NO_STACK}) n USING ("end")"""
"""stack_id, end and frame_ids (leaf first, never empty) of every stack."""

# A sample whose stack the table lacks (a damaged recording) keeps its weight, as lost.
HIT_STACKS = f"""
    SELECT h.stack_id, coalesce(s."end", 'lost') AS "end",
           coalesce(s.frame_ids, [(SELECT frame_id FROM ({_NO_STACK}) WHERE "end" = 'lost')]) AS frame_ids
    FROM (SELECT DISTINCT stack_id FROM hits) h LEFT JOIN ({ALL_STACKS}) s USING (stack_id)"""
"""The same of the stacks in the table ``hits``."""
