"""Writing a result to a file: wholly or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_file(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path``, replacing what is there.

    A regular file is replaced only when the new one is complete, so that a full disk leaves no half file;
    devices and pipes are written to directly.

    Raises:
        OSError: It cannot be written; the error names ``path``.
    """
    data = text.encode(errors="backslashreplace")
    try:
        target = path.resolve()  # a link stays, what it points at is replaced
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            _replace(target, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def _replace(target: Path, data: bytes) -> None:
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
