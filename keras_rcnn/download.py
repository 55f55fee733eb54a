"""Large files from the network: checked against the hash that they should have, and never left half-written."""

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

TIMEOUT = 30  # seconds without a byte
STALE = 24 * 3600  # seconds after which a part is what a killed process has left
CHUNK = 2**18


class DownloadError(OSError):
    """A file that could not be had from the network, or is not what it should be. Nothing of it is kept."""


def cache_folder():
    """Where downloads are kept: the environment's `KERAS_RCNN_HOME`, or else `~/.keras_rcnn`."""
    return Path(os.environ.get("KERAS_RCNN_HOME") or "~/.keras_rcnn").expanduser()


@contextlib.contextmanager
def downloaded(url, folder, sha256_prefix, size=None):
    """Downloads a file for the time of a `with` block.

    The file has a name of its own, so that processes which want the same one do not meet, and is gone at the end
    however that comes about. A progress bar goes to stderr.

    Args:
        url: str, http(s) or file.
        folder: where the file lies in the meantime; made if need be.
        sha256_prefix: str, hexadecimal digits with which its SHA-256 begins.
        size: int or None, bytes to expect, for the bar where the server does not say.

    Yields:
        The checked file's path.

    Raises:
        DownloadError: if the network, the server or the hash fails.
        OSError: if the file cannot be written; the message says how many MB it needs.
    """
    folder = Path(folder)
    name = url.rsplit("/", 1)[-1]
    part = folder / f"{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part"
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale(folder, name)
            digest, count = _stream(url, part, size, name)
        except DownloadError:
            raise
        except OSError as error:
            needs = f" It needs {megabytes(size)}." if size else ""
            raise OSError(
                error.errno,
                f"{folder}: {name} cannot be kept there ({error.strerror}).{needs} Nothing was left behind. Make room, "
                "or set the environment's KERAS_RCNN_HOME to a folder that has it.",
            ) from error
        if not digest.startswith(sha256_prefix.lower()):
            raise DownloadError(
                f"{url} gave {count} bytes whose SHA-256 begins with {digest[: len(sha256_prefix)]} instead of "
                f"{sha256_prefix}: a download that was cut off or altered on its way. Nothing of it was kept."
            )
        yield part
    finally:
        with contextlib.suppress(OSError):  # its folder may be no folder
            part.unlink(missing_ok=True)


def sha256_of(path):
    """A file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def megabytes(size):
    """`"167.5 MB"`: bytes for people, in millions."""
    return f"{size / 1e6:.1f} MB"


def _stream(url, path, size, name):
    """Writes what the URL gives; `(sha256, bytes)`."""
    from tqdm import tqdm

    request = urllib.request.Request(url, headers={"User-Agent": "keras-rcnn-zoo"})
    with _network(url):
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    total = int(response.headers.get("Content-Length") or 0) or size
    digest, count = hashlib.sha256(), 0
    with response, open(path, "xb") as file, tqdm(total=total, desc=name, unit="B", unit_scale=True) as bar:
        while True:
            with _network(url):
                chunk = response.read(CHUNK)
            if not chunk:
                return digest.hexdigest(), count
            digest.update(chunk)
            file.write(chunk)
            bar.update(len(chunk))
            count += len(chunk)


@contextlib.contextmanager
def _network(url):
    """Tells the network's failures from the disk's."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url} could not be downloaded: the server says {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url} could not be downloaded: {reason}.") from error


def _remove_stale(folder, name):
    for part in folder.glob(f"{name}.*.part"):
        with contextlib.suppress(OSError):  # another process may be as tidy
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()
