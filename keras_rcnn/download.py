"""Large files from the network: of a known size, checked against the hash that they should have, gone on with after an
interruption, and by one process at a time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from keras_rcnn.unfinished import Part, remove_stale

if TYPE_CHECKING:
    from keras_rcnn.interfaces import FilePath

logger = logging.getLogger(__name__)

TIMEOUT = 30  # seconds without a byte
SLOWEST = 1000, 60  # bytes a second, averaged over so many seconds
CHUNK = 2**18
# published sizes are rounded to 0.001 MiB
ROUNDED = 1049
MAX_BYTES = 2**32
BYTES_VARIABLE = "KERAS_RCNN_MAX_DOWNLOAD_BYTES"
MIRROR, OFFLINE = "KERAS_RCNN_MIRROR", "KERAS_RCNN_OFFLINE"
WAIT = 0.5  # seconds between two looks whether a lock is free
SCHEMES = ("http", "https")
_held: dict[Path, int] = {}  # locks of this process, and which thread has them


class DownloadError(OSError):
    """A file that could not be had from the network, or is not what it should be."""


def cache_folder() -> Path:
    """Where downloads are kept: the environment's `KERAS_RCNN_HOME`, or else `~/.keras_rcnn`."""
    return Path(os.environ.get("KERAS_RCNN_HOME") or "~/.keras_rcnn").expanduser()


@contextlib.contextmanager
def downloaded(
    url: str, folder: FilePath, sha256_prefix: str, size: int | None = None, most: int | None = None
) -> Iterator[Path]:
    """Downloads a file for the time of a `with` block.

    At the end the file is gone, however that comes about; only a download that is interrupted, of a server which can
    go on with it, leaves its part for the next try. A second process that wants the same file waits for the first. A
    progress bar goes to stderr. The environment's `KERAS_RCNN_MIRROR` and `KERAS_RCNN_OFFLINE` count, see `address`.

    Args:
        url: str, http or https.
        folder: where the file lies in the meantime; made if need be.
        sha256_prefix: str, hexadecimal digits with which its SHA-256 begins; `""` if nobody knows them, and the caller
            has another way to tell the file.
        size: int or None, bytes that it has, give or take 0.001 MiB. More are not read.
        most: int or None, bytes that it may have if `size` is not known. None: the environment's
            `KERAS_RCNN_MAX_DOWNLOAD_BYTES`, or else 4 GiB.

    Yields:
        The checked file's path.

    Raises:
        DownloadError: if the address, the network, the server, the size or the hash is wrong.
        OSError: if the file cannot be written; the message says how many MB it needs.
    """
    folder, sha256_prefix, name, url = Path(folder), sha256_prefix.lower(), _name(url), address(url)
    known = sha256_prefix or hashlib.sha256(url.encode()).hexdigest()
    part = Part(folder / f"{name}.{known[:16]}.part", url)
    needs = f" It needs {megabytes(size)}." if size else ""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale(folder, name)
            stack.enter_context(alone(part.path.with_suffix(".lock"), f"downloads {name}"))
            stack.callback(part.remove)
            digest, count = _stream(url, part, size, most)
        except DownloadError:
            raise
        except OSError as error:
            raise OSError(
                error.errno,
                f"{folder}: {name} cannot be kept there ({error.strerror}).{needs} Nothing was left behind. Make room, "
                "or set the environment's KERAS_RCNN_HOME to a folder that has it.",
            ) from error
        if not digest.startswith(sha256_prefix):
            raise DownloadError(
                f"{url} gave {count} bytes whose SHA-256 begins with {digest[: len(sha256_prefix)]} instead of "
                f"{sha256_prefix}: a download that was cut off or altered on its way. Nothing of it was kept."
            )
        yield part.path


def offline() -> bool:
    """Whether the environment's `KERAS_RCNN_OFFLINE` forbids the network."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no")


def address(url: str) -> str:
    """Where a file is fetched from: the environment's `KERAS_RCNN_MIRROR` takes the place of scheme and host.

    Raises:
        DownloadError: the mirror is no address, or the environment's `KERAS_RCNN_OFFLINE` forbids the network.
    """
    if offline():
        raise DownloadError(f"{url} was not asked for: the environment's {OFFLINE} forbids the network. Unset it once.")
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if not mirror:
        return url
    parts = urllib.parse.urlsplit(mirror)
    if parts.scheme not in SCHEMES or not parts.netloc or parts.query or parts.fragment:
        raise DownloadError(f"The environment's {MIRROR} is what addresses begin with, https://HOST, not {mirror!r}.")
    return mirror + urllib.parse.urlunsplit(("", "", *urllib.parse.urlsplit(url)[2:]))


def sha256_of(path: FilePath) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked(path: Path, sha256_prefix: str) -> Path:
    """The path of a file, if its SHA-256 begins as it should.

    Raises:
        DownloadError: it begins otherwise.
    """
    digest = sha256_of(path)
    if not digest.startswith(sha256_prefix.lower()):
        raise DownloadError(
            f"{path} is not the file that it should be: its SHA-256 begins with {digest[: len(sha256_prefix)]} instead "
            f"of {sha256_prefix}. Delete it, and copy or download it again."
        )
    return path


def megabytes(size: float) -> str:
    """`"167.5 MB"`: bytes for people, in millions."""
    return f"{size / 1e6:.1f} MB"


# === The network ===


def _opener() -> urllib.request.OpenerDirector:
    """http and https and nothing else, after redirections too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _open(url: str, start: int = 0, validator: str | None = None) -> http.client.HTTPResponse:
    """The server's answer, from a byte on if it still has the same file."""
    headers: dict[str, Any] = {"User-Agent": "keras-rcnn-zoo"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    with _network(url):
        if urllib.parse.urlsplit(url).scheme not in SCHEMES:
            raise DownloadError(f"{url} could not be downloaded: it is neither http nor https.")
        return _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


@contextlib.contextmanager
def _network(url: str) -> Iterator[None]:
    """Tells the network's failures from the disk's."""
    try:
        yield
    except DownloadError:
        raise
    except urllib.error.HTTPError as error:
        reason = _printable(f"{error.code} {error.reason}")
        raise DownloadError(f"{url} could not be downloaded: the server says {reason}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address, or no header
        reason = _printable(str(getattr(error, "reason", None) or error or type(error).__name__))
        raise DownloadError(f"{url} could not be downloaded: {reason}.") from error


def _stream(url: str, part: Part, size: int | None, most: int | None) -> tuple[str, int]:
    """Writes what the URL gives; `(sha256, bytes)`."""
    from tqdm import tqdm

    limit = size + ROUNDED if size else most or max_bytes()
    response, have = _answer(url, part)
    with response:
        total = _total(url, response, have, limit)
        part.begin(response)
        digest, count = part.digest(have), have
        with (
            open(part.path, "ab" if have else "wb") as file,
            tqdm(total=total or size, initial=have, desc=_name(url), unit="B", unit_scale=True) as bar,
        ):
            try:
                for chunk in _chunks(url, response):
                    count += len(chunk)
                    if count > limit:
                        part.keep = False
                        raise DownloadError(f"{url} gives more than {limit} bytes. Nothing of it was kept.")
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
                if total is not None and count < total:
                    raise DownloadError(f"{url} broke off after {count} of {total} bytes.")
            except DownloadError as error:
                if part.keep:
                    kept = f"{megabytes(count)} of it are kept for a week: the next try goes on from there."
                    raise DownloadError(f"{error} {kept}") from error
                raise
            except OSError:  # the disk's
                part.keep = False
                raise
    part.keep = False
    return digest.hexdigest(), count


def _answer(url: str, part: Part) -> tuple[http.client.HTTPResponse, int]:
    """The server's answer, and how many of the bytes that are here it goes on after."""
    have, validator = part.begun()
    if have:
        part.keep = True  # unless the server says otherwise
        try:
            response = _open(url, have, validator)
        except DownloadError as error:
            if getattr(error.__cause__, "code", None) != 416:  # it has a shorter file by now
                raise
        else:
            start = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range") or "")
            if response.status == 206 and start and int(start[1]) == have:
                return response, have
            if response.status != 206:
                return response, 0
            response.close()
        part.keep = False
    return _open(url), 0


def _total(url: str, response: http.client.HTTPResponse, have: int, limit: int) -> int | None:
    """Bytes of the whole file, or None if the server does not say."""
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", length):
        raise DownloadError(f"{url} could not be downloaded: the server says that it has {_printable(length)!r} bytes.")
    if have + int(length) > limit:
        raise DownloadError(f"{url} has {have + int(length)} bytes, and should have no more than {limit}.")
    return have + int(length)


def _chunks(url: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What comes, as it comes; an end to what comes too slowly to ever end."""
    least, seconds = SLOWEST
    since, count = time.monotonic(), 0
    while True:
        with _network(url):
            chunk = response.read1(CHUNK)
        if not chunk:
            return
        yield chunk
        count += len(chunk)
        passed = time.monotonic() - since
        if passed > seconds:
            if count < least * passed:
                raise DownloadError(f"{url} gives less than {least} bytes a second.")
            since, count = time.monotonic(), 0


def max_bytes() -> int:
    """What a download of unknown size may have."""
    value = os.environ.get(BYTES_VARIABLE)
    if value and not re.fullmatch("[0-9]{1,18}", value):
        raise DownloadError(f"The environment's {BYTES_VARIABLE} is a number of bytes, not {value!r}.")
    return int(value) if value else MAX_BYTES


def _name(url: str) -> str:
    """What a file is called on this disk, whatever the address says."""
    last = urllib.parse.unquote(re.split("[?#]", url)[0].rstrip("/").rsplit("/", 1)[-1], errors="replace")
    return re.sub(r"[^A-Za-z0-9._-]", "_", last)[-100:].lstrip(".") or "download"


def _printable(words: str) -> str:
    """A stranger's words without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in words[:200])


# === One process at a time ===


@contextlib.contextmanager
def alone(path: Path, task: str) -> Iterator[None]:
    """Waits until no other process is in such a block, and then is in it.

    The system takes the lock of a process that ends, however it ends, so that there are no stale ones; the file itself
    means nothing. Where the disk cannot lock (some network disks), nobody waits.

    Args:
        path: pathlib.Path of the lock's file, in a folder that exists; it is gone at the end.
        task: str, what is done meanwhile, for the message of the one who waits: "downloads weights.pth".

    Raises:
        OSError: if the file cannot be made.
        DownloadError: if this very thread is in such a block already, and would wait for itself.
    """
    if _held.get(path) == threading.get_ident():
        raise DownloadError(f"This thread {task} already (lock {path}).")
    file, told = _locked(path), False
    while file is None:
        if not told:
            owner = _owner(path)
            logger.warning("%s %s (lock %s); this one waits until it is done.", owner, task, path)
            told = True
        time.sleep(WAIT)
        file = _locked(path)
    _held[path] = threading.get_ident()
    try:
        yield
    finally:
        del _held[path]
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        file.close()


def _locked(path: Path) -> TextIO | None:
    """The open and locked file, or None if another process has it."""
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (it stays open)
    try:
        _lock(file)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise FileNotFoundError  # who had it has just removed it
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        return file
    except OSError as error:
        file.close()
        if error.errno in (None, errno.EACCES, errno.EAGAIN, errno.EDEADLK, errno.ENOENT):
            return None
        raise


def _lock(file: TextIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _owner(path: Path) -> str:
    for _ in range(10):  # who has just taken the lock may not have written its number yet
        with contextlib.suppress(OSError, ValueError):
            return f"Process {int(path.read_text(encoding='utf-8'))}"
        time.sleep(0.05)
    return "Another process"
