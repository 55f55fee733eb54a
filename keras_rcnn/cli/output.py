"""What the command prints and writes; nothing else in the package prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from keras_rcnn.printable import printable

if TYPE_CHECKING:
    import numpy as np

    from keras_rcnn.interfaces import RLE, FilePath

# as messages name an argument, and as it is said on the command line
_OPTIONS = {
    "pass relative=True": "pass --relative",
    "columns=[...]": "--columns A,B,...",
    "class_names=[...]": "--class-names A,B,...",
    "class_attribute='...'": "--class-attribute NAME",
    "images=... (--images DIR)": "--images DIR",
    "read it by load(...) (--data)": "read it by --data",
    "pass overwrite=True": "pass --overwrite",
    "coco=... (--coco FILE)": "--coco FILE",
}


def say(text: object, file: TextIO | None = None) -> None:
    """Prints what may have file names, class names and other people's messages in it."""
    print(printable(text, lines=True), file=file)


def message(error: BaseException) -> str:
    """One line, or one for each of several problems."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras's bold letters
    lines = (text or type(error).__name__).splitlines()
    bad = re.search(r": \d+ bad (annotation|object|image|mask)(s?)$", lines[0])
    if bad:
        lines[0] += f" (--on-bad skip leaves {'them' if bad[2] else 'it'} out)"
    text = _as_typed("\n".join(lines))
    return ": ".join(line.strip() for line in text.splitlines()) if len(lines) == 2 else text


def _as_typed(text: str) -> str:
    """A message that speaks of Python's arguments, with the command's options in their place."""
    text = re.sub(r"\bbox_format='(\w+)'", r"--box-format \1", text)
    for python, option in _OPTIONS.items():
        text = text.replace(python, option)
    return re.sub(r"format='\w+' \((--format \w+)\)", r"\1", text)


def check_out(out: Path, args: argparse.Namespace, but: FilePath | None = None) -> None:
    """Refuses a folder with anything in it, unless the command says what to do; `but` may lie in it."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file: --out names a folder")
    resume = getattr(args, "resume", False)
    if not out.is_dir() or args.overwrite or resume:
        return
    but = but and Path(but).resolve()
    # .training.lock is what a killed training leaves
    there = sorted(
        path.name for path in out.iterdir() if path.resolve() != but and not path.name.startswith(".training.")
    )
    if there:
        ways = "go on with --resume, or replace it with --overwrite" if hasattr(args, "resume") else "or --overwrite it"
        more = ", ..." if len(there) > 4 else ""
        raise FileExistsError(f"{out} is not empty ({', '.join(there[:4])}{more}): name a new folder, {ways}")


def write_json(path: FilePath, value: Any) -> None:
    from keras_rcnn.json_text import finite

    write(Path(path), json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def write(path: Path, text: str | bytes) -> None:
    """Aside and renamed, so that a full disk leaves the old file."""
    from keras_rcnn.files import aside

    with aside(path) as temporary:
        temporary.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))


def with_run_lengths(detections: Mapping[str, Any]) -> dict[str, Any]:
    """One photo's detections with masks as COCO's run lengths, which JSON has."""
    return {key: _run_lengths(value) if key == "masks" else value for key, value in detections.items()}


def _run_lengths(masks: np.ndarray | list[RLE]) -> list[RLE]:
    from keras_rcnn.data.masks import text_rle
    from keras_rcnn.evaluation.coco import encode_masks

    return [text_rle(mask) for mask in encode_masks(masks)]


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage() if record.levelno == logging.INFO else super().format(record)
        return printable(_as_typed(text), lines=True)


@contextlib.contextmanager
def library_log() -> Iterator[None]:
    """The library's warnings on stderr, and what it found out by itself, for as long as the command runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("keras_rcnn")
    logger.addHandler(handler)
    told = [logging.getLogger(f"keras_rcnn.{name}") for name in ("data.loading", "survey", "training.progress")]
    levels = [one.level for one in told]
    try:
        for one in told:
            one.setLevel(logging.INFO)
        yield
    finally:
        logger.removeHandler(handler)
        for one, level in zip(told, levels, strict=True):
            one.setLevel(level)


def import_keras_quietly() -> None:
    """Imports Keras and its backend with stderr aside: some of TensorFlow's notices heed no log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import keras  # noqa: F401
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
