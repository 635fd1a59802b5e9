"""Debug files from debuginfod servers, into the cache that all clients of theirs share.

The protocol, ``GET URL/buildid/HEX/debuginfo``, and the environment variables are those of
debuginfod(8) and debuginfod_find_debuginfo(3).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_TIMEOUT_S = 30.0
_MAX_SIZE_BYTES = 8 << 30
_CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int | None], None]
"""Called with the bytes that came so far, and how many will come where the server tells."""


@dataclass
class Servers:
    """The servers that ``DEBUGINFOD_URLS`` names.

    Args:
        urls: Their addresses, asked in this order.
        cache: Where files are kept, ``BUILD_ID/debuginfo``.
        timeout_s: A server that sends nothing for so long is given up, for all files.
        max_size_bytes: Larger files are not fetched.
        failures: By address, why a server was given up.
    """

    urls: tuple[str, ...]
    cache: Path
    timeout_s: float = _TIMEOUT_S
    max_size_bytes: int = _MAX_SIZE_BYTES
    failures: dict[str, str] = field(default_factory=dict)

    def fetch(self, build_id: str, on_progress: Progress | None = None) -> Path | None:
        """The debug file of the code with ``build_id`` (hex), from the cache or the first server that has it.

        Raises:
            OSError: The cache cannot be written.
        """
        path = self.cache / build_id / "debuginfo"
        if path.is_file() and path.stat().st_size:
            return path
        for url in self.urls:
            if url not in self.failures and self._fetch_from(url, build_id, path, on_progress):
                return path
        return None

    def _fetch_from(self, url: str, build_id: str, path: Path, on_progress: Progress | None) -> bool:
        from http.client import HTTPException
        from urllib.error import HTTPError
        from urllib.request import urlopen

        try:
            with urlopen(f"{url}/buildid/{build_id}/debuginfo", timeout=self.timeout_s) as response:
                size = response.headers.get("Content-Length")
                size_bytes = int(size) if size and size.isdecimal() else None
                if (size_bytes or 0) > self.max_size_bytes:
                    return False
                return self._keep(response, size_bytes, path, on_progress)
        except HTTPError as error:
            if error.code != 404:
                self.failures[url] = f"HTTP status {error.code}"
        except _CacheError as error:
            raise error.error from None
        except (OSError, HTTPException, ValueError) as error:  # URLError and timeouts are OSErrors
            self.failures[url] = str(getattr(error, "reason", None) or error) or type(error).__name__
        return False

    def _keep(
        self, response: BinaryIO, size_bytes: int | None, path: Path, on_progress: Progress | None
    ) -> bool:
        """Write what comes under its name when it is complete; False when it is cut off or too large."""
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with _cache_errors():
                path.parent.mkdir(parents=True, exist_ok=True)
                file = partial.open("wb")
            with file:
                done = 0
                while chunk := response.read(_CHUNK_BYTES):
                    done += len(chunk)
                    if done > self.max_size_bytes:
                        return False
                    with _cache_errors():
                        file.write(chunk)
                    if on_progress is not None:
                        on_progress(done, size_bytes)
            if not done or (size_bytes is not None and done != size_bytes):
                return False
            with _cache_errors():
                partial.replace(path)
            return True
        finally:
            with suppress(OSError):
                partial.unlink()
            with suppress(OSError):
                path.parent.rmdir()  # unless the file is there


class _CacheError(Exception):
    """The cache, not the server, is what failed."""

    def __init__(self, error: OSError) -> None:
        self.error = error


@contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _CacheError(error) from None


def servers(environment: Mapping[str, str] = os.environ) -> Servers | None:
    """The servers that the environment names; None when ``DEBUGINFOD_URLS`` is not set: none is asked then.

    Args:
        environment: The environment variables.
    """
    urls = tuple(
        url.rstrip("/")
        for url in environment.get("DEBUGINFOD_URLS", "").split()
        if url.startswith(("http://", "https://"))
    )
    if not urls:
        return None
    return Servers(
        urls,
        _cache(environment),
        timeout_s=_number(environment.get("DEBUGINFOD_TIMEOUT")) or _TIMEOUT_S,
        max_size_bytes=int(_number(environment.get("DEBUGINFOD_MAXSIZE")) or _MAX_SIZE_BYTES),
    )


def _cache(environment: Mapping[str, str]) -> Path:
    if cache := environment.get("DEBUGINFOD_CACHE_PATH"):
        return Path(cache)
    if cache := environment.get("XDG_CACHE_HOME"):
        return Path(cache) / "debuginfod_client"
    return Path(environment.get("HOME") or Path.home()) / ".cache" / "debuginfod_client"


def _number(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0
