"""The call tree as indented text."""

from __future__ import annotations

from collections.abc import Iterator

from sberf.analysis.call_tree import GROUP_KIND, CallNode, CallTree
from sberf.units import format_count, format_percent
from sberf.views.text import (
    ELLIPSIS,
    Column,
    Paint,
    base_name,
    display_width,
    layout_lines,
    printable,
    shorten,
)

_NUMBERS = ("pid", "tid", "cpu")


def call_tree_lines(tree: CallTree, width: int | None, paint: Paint | None = None) -> Iterator[str]:
    """A line for each node of ``tree``, after a line of titles.

    A node that has no siblings stands straight below the one above, so that the indentation grows only
    where paths part.

    Args:
        tree: What to show.
        width: Columns that the lines may take; None for as many as they need.
        paint: Colours for percentages, or None.
    """
    numbers = [Column("Total", right=True)] + ([] if tree.inverted else [Column("Self", right=True)])
    columns = [*numbers, Column("Caller" if tree.inverted else "Function")]
    widths = [7] * len(numbers) + [0]
    room = None if width is None else max(20, width - 9 * len(numbers))
    rows = (cells if len(numbers) == 2 else [cells[0], cells[2]] for cells in _rows(tree, room))
    yield from layout_lines(columns, rows, widths, paint=paint)


def _rows(tree: CallTree, room: int | None) -> Iterator[list[str]]:
    whole = tree.nodes[0].total_weight or 1
    shown = [0] * len(tree.nodes)  # direct children of each node, one more where some are hidden
    for node in tree.nodes[1:]:
        assert node.parent is not None
        shown[node.parent] += 1
    rails: list[str] = []  # what stands before the children of the node at each depth
    left = [count + bool(node.hidden_children) for count, node in zip(shown, tree.nodes, strict=True)]
    alone = [count == 1 for count in left]
    pending: list[tuple[int, str, CallNode]] = []  # hidden children, to be shown after their siblings
    for index, node in enumerate(tree.nodes):
        while pending and node.depth <= pending[-1][0]:
            yield _hidden(pending.pop(), whole, room)
        del rails[node.depth :]
        lead = rails[-1] if rails else ""
        rail = lead
        if node.parent is not None and not alone[node.parent]:
            left[node.parent] -= 1
            lead, rail = (lead + "├─ ", lead + "│  ") if left[node.parent] else (lead + "└─ ", lead + "   ")
        rails.append(rail)
        yield [
            format_percent(node.total_weight / whole),
            format_percent(node.self_weight / whole),
            _fit(lead, _label(node), room),
        ]
        if node.hidden_children:
            pending.append((node.depth, rail + ("" if alone[index] else "└─ "), node))
    while pending:
        yield _hidden(pending.pop(), whole, room)


def _hidden(entry: tuple[int, str, CallNode], whole: int, room: int | None) -> list[str]:
    _, lead, node = entry
    label = f"{ELLIPSIS} {format_count(node.hidden_children)} more"
    return [format_percent(node.hidden_weight / whole), "", _fit(lead, label, room)]


def _label(node: CallNode) -> str:
    name = printable(node.name)
    if node.kind == GROUP_KIND:
        return f"{node.module} {name}" if node.module in _NUMBERS else name
    module = printable(node.module)
    bracketed = module if module.startswith("[") else f"[{module}]"
    where = "" if node.name.startswith((f"{node.module}+0x", "[no stack")) else f"  {bracketed}"
    line = f"  {printable(base_name(node.line))}" if node.line else ""
    return name + where + (" (inlined)" if node.inlined else "") + line


def _fit(lead: str, label: str, room: int | None) -> str:
    """Cut the label on the right, and a deep indentation on the left: half the room is the label's."""
    if room is not None and display_width(lead) > room // 2:
        lead = ELLIPSIS + lead[len(lead) - room // 2 + 1 :]
    return lead + shorten(label, None if room is None else room - len(lead))
