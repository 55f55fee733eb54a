"""Downloads that broke off: their bytes, and what tells whether a server can go on with them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import time
from pathlib import Path
from typing import Any

STALE = 7 * 24 * 3600  # seconds after which a part is what nobody goes on with


class Part:
    """The bytes of a file that have come so far, and beside them of which version of which address they are."""

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url, self.keep = path, url, False
        self.state = path.with_suffix(".part.json")

    def begun(self) -> tuple[int, str | None]:
        """`(bytes, validator)` of a download that can go on; `(0, None)` if there is none."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            if state["url"] == self.url and re.fullmatch(r"[\x20-\x7e]{1,200}", state["validator"]):
                return self.path.stat().st_size, state["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or not ours
        return 0, None

    def begin(self, response: http.client.HTTPResponse) -> None:
        """Notes by what the server will know the file again; without that the part is not kept."""
        tag = response.headers.get("ETag") or ""
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
        self.keep = bool(validator)
        if self.keep:
            self.state.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")

    def digest(self, have: int) -> Any:
        """The SHA-256 of the bytes that are here."""
        if not have:
            return hashlib.sha256()
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256")

    def remove(self) -> None:
        if not self.keep:
            for path in (self.path, self.state):
                with contextlib.suppress(OSError):  # its folder may be no folder
                    path.unlink(missing_ok=True)


def remove_stale(folder: Path, name: str) -> None:
    """Removes the parts of a file that nobody goes on with."""
    for part in (*folder.glob(f"{name}.*.part"), *folder.glob(f"{name}.*.part.json")):
        with contextlib.suppress(OSError):  # another process may be as tidy
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()
