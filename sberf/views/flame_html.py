"""A flame graph as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import re

from sberf.analysis.flame import FlameDiff, FlameGraph
from sberf.views.flame_about import About
from sberf.views.flame_data import asset, payload

_SCRIPTS = ("flame_profile.js", "flame_format.js", "flame_draw.js", "flame_viewer.js", "flame_page.js")


def flame_html(graph: FlameGraph | FlameDiff, about: About, *, show_inverted: bool = False) -> str:
    """The page.

    The browser runs no script in it but ours, and asks the network for nothing: its content security
    policy allows the hash of the script and the style, and nothing else.  Names are in the payload,
    which is base64, and are drawn as text.

    Args:
        graph: What to draw, not inverted: the page makes the inverted view itself.
        about: The words around it.
        show_inverted: Start with the inverted view.
    """
    style = asset("flame.css")
    script = "(() => {\n" + '"use strict";\n' + "".join(map(asset, _SCRIPTS)) + "})();\n"
    parts = {
        "policy": _policy(script, style),
        "title": html.escape(about.title),
        "style": style,
        "script": script,
        "payload": payload(graph, about, show_inverted),
    }
    # In one pass, so that nothing in a part is taken for a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], asset("flame.html"))


def _policy(script: str, style: str) -> str:
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
