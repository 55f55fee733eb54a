"""Files whose SHA-256 nobody has published: what it is at the first download is recorded in the cache, and is what it
has to be at every later one. The package's maintainers turn what is recorded into a known one.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import NamedTuple

from keras_rcnn.download import DownloadError, alone, cache_folder
from keras_rcnn.files import aside
from keras_rcnn.preset_rules import HEX, text, whole


class Pin(NamedTuple):
    """What a file was at its first download.

    Attributes:
        preset: str, which it was downloaded for.
        sha256: str, 64 hexadecimal digits.
        size: int, bytes.
        date: str, `"2026-11-27"`.
    """

    preset: str
    sha256: str
    size: int
    date: str


def pins_path() -> Path:
    """The file in the cache that holds them."""
    return cache_folder() / "pins.json"


def read_pins() -> dict[str, Pin]:
    """What is recorded: address -> `Pin`.

    Raises:
        DownloadError: if the file is damaged; the message says what to do.
    """
    path = pins_path()
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        pins = {url: Pin(**entry) for url, entry in recorded.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path) from error
    if not all(map(_is_sound, pins.values())):
        raise _damaged(path)
    return pins


def check_pin(url: str, sha256: str, where: str) -> None:
    """Compares a file with what it was at its first download; if that was never, all is well.

    Args:
        url: str, the address that its publisher gives it, whatever mirror it came from.
        sha256: str, of the file.
        where: str, where the file is from, for the message.

    Raises:
        DownloadError: if it is another file.
    """
    pin = read_pins().get(url)
    if pin is not None and pin.sha256 != sha256:
        raise DownloadError(
            f"{where} has the SHA-256 {sha256}, and on {pin.date} it had {pin.sha256}, which {pins_path()} records. "
            "Either its publisher has replaced it, or somebody on the way has: it was not used. If its publisher says "
            "that it is another by now, delete its line there, and load the preset again."
        )


def record_pin(url: str, preset: str, sha256: str, size: int) -> None:
    """Records what a file is, if nothing is recorded of it.

    Args:
        url: str, as for `check_pin`.
        preset: str, which it was downloaded for.
        sha256: str, of the file.
        size: int, its bytes.

    Raises:
        OSError: if the file in the cache cannot be written.
        DownloadError: if it is damaged.
    """
    path = pins_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_suffix(".lock"), "records a file's SHA-256"):
        pins = read_pins()
        if url in pins:
            return
        pins[url] = Pin(preset, sha256, size, datetime.date.today().isoformat())
        lines = [f"{json.dumps(key)}: {json.dumps(pin._asdict())}" for key, pin in sorted(pins.items())]
        with aside(path) as temporary:  # a line a file, to be deleted by hand
            temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _is_sound(pin: Pin) -> bool:
    texts = text(300).accepts(pin.preset) and text(20).accepts(pin.date)
    return texts and HEX.accepts(pin.sha256) and whole(0, 2**50).accepts(pin.size)


def _damaged(path: Path) -> DownloadError:
    return DownloadError(
        f"{path}, which records what downloaded files were, cannot be read. Mend it, or delete it: what is downloaded "
        "next is then recorded anew."
    )
