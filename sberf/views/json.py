"""Results as JSON: a dataclass becomes an object with the fields that its documentation names."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


def to_json(result: Any) -> str:
    """JSON text of a result of ``sberf.analysis``, or of lists and dicts of them.

    All characters outside ASCII and all control characters are escaped, so that the text is safe on
    any terminal.
    """
    return json.dumps(jsonable(result), indent=1).replace("\x7f", "\\u007f")


def jsonable(value: Any) -> Any:
    """``value`` with dataclasses and named tuples as dicts, and tuples as lists."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: jsonable(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return str(value)
