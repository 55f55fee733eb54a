"""What the command prints and writes; nothing else in the package prints."""

import contextlib
import json
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

from keras_rcnn.printable import printable


def say(text, file=None):
    """Prints what may have file names, class names and other people's messages in it."""
    print(printable(text, lines=True), file=file)


def message(error):
    """One line, or one for each of several problems."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras's bold letters
    lines = (text or type(error).__name__).splitlines()
    if re.search(r"bad (annotation|image|mask)\(s\)", lines[0]):
        lines[0] += " (--on-bad skip leaves them out)"
    lines = [re.sub(r"\bbox_format='(\w+)'", r"--box-format \1", line) for line in lines]  # as it is said here
    lines = [line.replace("pass relative=True", "pass --relative") for line in lines]
    lines = [line.replace("columns=[...]", "--columns A,B,...") for line in lines]
    lines = [line.replace("class_names=[...]", "--class-names A,B,...") for line in lines]
    lines = [line.replace("class_attribute='...'", "--class-attribute NAME") for line in lines]
    lines = [line.replace("images=... (--images DIR)", "--images DIR") for line in lines]
    lines = [re.sub(r"format='\w+' \((--format \w+)\)", r"\1", line) for line in lines]
    lines = [line.replace("read it by load(...) (--data)", "read it by --data") for line in lines]
    return ": ".join(line.strip() for line in lines) if len(lines) == 2 else "\n".join(lines)


def check_out(out, args, but=None):
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


def write_json(path, value):
    from keras_rcnn.json_text import finite

    write(Path(path), json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def write(path, text):
    """Aside and renamed, so that a full disk leaves the old file."""
    from keras_rcnn.files import aside

    with aside(path) as temporary:
        temporary.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))


def with_run_lengths(detections):
    """One photo's detections with masks as COCO's run lengths, which JSON has."""
    return {key: _run_lengths(value) if key == "masks" else value for key, value in detections.items()}


def _run_lengths(masks):
    from keras_rcnn.evaluation.coco import encode_masks

    def text(counts):
        return counts if isinstance(counts, str) else bytes(counts).decode()

    return [
        {"size": [int(side) for side in mask["size"]], "counts": text(mask["counts"])} for mask in encode_masks(masks)
    ]


class _Formatter(logging.Formatter):
    def format(self, record):
        text = record.getMessage() if record.levelno == logging.INFO else super().format(record)
        return printable(text, lines=True)


@contextlib.contextmanager
def library_log():
    """The library's warnings on stderr, for as long as the command runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("keras_rcnn")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def import_keras_quietly():
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
