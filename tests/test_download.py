"""Downloads: what is checked, what stays, and servers that misbehave in every way."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from keras_rcnn import download
from keras_rcnn.download import DownloadError, downloaded

ROOT = Path(__file__).resolve().parents[1]
CONTENT = bytes(range(256)) * 8000  # 2 MB


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def get(server, folder, prefix=None, size=None):
    """The bytes that a download gives."""
    with downloaded(server.url, folder, prefix or sha256(server.content), size) as path:
        return path.read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_there_for_a_while(server, tmp_path, capsys):
    server.content = CONTENT
    digest = sha256(CONTENT)
    with downloaded(server.url, tmp_path / "a" / "b", digest[:8].upper()) as path:
        assert path.parent == tmp_path / "a" / "b"
        assert path.read_bytes() == CONTENT
    assert names(path.parent) == []
    assert "weights.pth" in capsys.readouterr().err  # the progress bar


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": b"other bytes"}, r"11 bytes whose SHA-256 begins with \w{8} instead of 0badc0de"),
        ({"content": b"cut", "claims": "100"}, "broke off after 3 of 100 bytes"),
        ({"status": 404}, "404 Not Found"),
        ({"status": 503}, "503"),
        ({"content": b"x", "claims": "a lot"}, "says that it has 'a lot' bytes"),
        ({"content": b"x", "claims": "-5"}, "says that it has '-5' bytes"),
        ({"content": b"x", "claims": "9" * 30}, "says that it has '9999"),
        ({"content": b"x", "claims": "99999999999999"}, "has 99999999999999 bytes, and should have no more than"),
        ({"status": 302, "location": "file:///etc/passwd"}, "could not be downloaded"),
        ({"status": 302, "location": "ftp://127.0.0.1/x"}, "could not be downloaded: unknown url type: ftp"),
        ({"status": 302, "location": "data:,x"}, "could not be downloaded"),
        ({"status": 302, "location": "http://[::1/"}, "could not be downloaded"),
        ({"status": 302, "location": "/weights.pth"}, "redirect"),
        ({"headers": {f"X-{i}": "x" for i in range(200)}}, "could not be downloaded: got more than 100 headers"),
        ({"headers": {"X": "x" * 70_000}}, "could not be downloaded: got more than 65536 bytes"),
    ],
)
def test_bad_downloads_leave_nothing(server, tmp_path, changes, message):
    vars(server).update(changes)
    with pytest.raises(DownloadError, match=message):
        get(server, tmp_path, "0badc0de")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///dev/zero", "ftp://127.0.0.1/x", "data:application/octet-stream,x", "weights.pth", "", "http://",
        "http://127.0.0.1:port/x", "http://[::1/x", "http://a..b/x", "http://" + "a" * 70 + ".de/x", "https:///x",
        "http://127.0.0.1/a b", "http://127.0.0.1/\x00", "http://ü.example:99999/", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_bad_addresses(tmp_path, url):
    with pytest.raises(DownloadError, match="could not be downloaded"), downloaded(url, tmp_path, "0badc0de"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("claims", ["", None])
def test_more_than_the_size_is_not_read(server, tmp_path, claims):
    """With and without a Content-Length, of a file whose size is known to 0.001 MiB."""
    server.content, server.claims, server.endless = CONTENT, claims, True
    if claims is None:
        server.claims = str(2**40)
    before = time.monotonic()
    with pytest.raises(DownloadError, match=f"(gives|has .*) more than {len(CONTENT) + download.ROUNDED}"):
        get(server, tmp_path, size=len(CONTENT))
    assert time.monotonic() - before < 10
    assert names(tmp_path) == []


def test_without_a_size_there_is_a_limit_too(server, tmp_path, monkeypatch):
    server.content, server.claims, server.endless = CONTENT, "", True
    monkeypatch.setenv(download.BYTES_VARIABLE, "3000000")
    with pytest.raises(DownloadError, match="more than 3000000 bytes"):
        get(server, tmp_path)
    monkeypatch.setenv(download.BYTES_VARIABLE, "3 MB")
    with pytest.raises(DownloadError, match="is a number of bytes, not '3 MB'"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_what_is_too_slow_ends(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SLOWEST", (10**9, 0.01))
    server.content, server.pause = CONTENT, 0.1
    with pytest.raises(DownloadError, match="gives less than 1000000000 bytes a second"):
        get(server, tmp_path)
    assert names(tmp_path) == []


# === Going on ===


def test_an_interrupted_download_goes_on(server, tmp_path):
    server.content, server.etag = CONTENT, '"one"'
    for cut in (700_000, 600_000):
        server.cut = cut
        with pytest.raises(DownloadError, match=r"broke off after .* MB of it are kept for a week: the next try"):
            get(server, tmp_path)
    server.cut = None
    assert get(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=700000-", "bytes=1300000-"]
    assert names(tmp_path) == []


def test_another_file_at_the_address_begins_again(server, tmp_path):
    server.content, server.etag, server.cut = CONTENT, '"one"', 700_000
    with pytest.raises(DownloadError, match="kept for a week"):
        get(server, tmp_path)
    server.etag, server.cut = '"two"', None  # answers 200 with all of it
    assert get(server, tmp_path) == CONTENT
    assert server.ranges[-1] == "bytes=700000-"
    assert names(tmp_path) == []


def test_a_part_that_was_altered_is_found_and_goes(server, tmp_path):
    server.content, server.etag, server.cut = CONTENT, '"one"', 700_000
    with pytest.raises(DownloadError, match="kept for a week"):
        get(server, tmp_path)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(b"?" * 700_000)
    server.cut = None
    with pytest.raises(DownloadError, match="SHA-256 begins with"):
        get(server, tmp_path)
    assert names(tmp_path) == []
    assert get(server, tmp_path) == CONTENT


def test_a_part_as_long_as_the_file_begins_again(server, tmp_path):
    server.content, server.etag, server.cut = CONTENT, '"one"', 700_000
    with pytest.raises(DownloadError, match="kept for a week"):
        get(server, tmp_path)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(b"?" * (len(CONTENT) + 5))
    server.cut = None
    assert get(server, tmp_path) == CONTENT  # after a 416
    assert len(server.ranges) == 3


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"url": 3, "validator": 4}', '{"validator": "a\\nb"}', "\x00\x80"])
def test_a_damaged_note_begins_again(server, tmp_path, state):
    server.content, server.etag, server.cut = CONTENT, '"one"', 700_000
    with pytest.raises(DownloadError, match="kept for a week"):
        get(server, tmp_path)
    (note,) = tmp_path.glob("*.part.json")
    note.write_text(state, encoding="latin-1")
    server.cut = None
    assert get(server, tmp_path) == CONTENT
    assert server.ranges == [None, None]


def test_what_nobody_goes_on_with_is_removed(server, tmp_path):
    server.content = b"x"
    old, new = tmp_path / "weights.pth.1-a.part", tmp_path / "weights.pth.2-b.part"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    assert get(server, tmp_path) == b"x"
    assert not old.exists() and new.exists()


# === Disks ===


def test_no_network_and_no_room(server, tmp_path):
    nowhere = "http://127.0.0.1:9/weights.pth"
    refused = pytest.raises(DownloadError, match=f"{nowhere} could not be downloaded: .*refused")
    with refused, downloaded(nowhere, tmp_path, "0badc0de"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be kept there.* It needs 167.5 MB.*KERAS_RCNN_HOME"):
        get(server, tmp_path / "file" / "folder", size=167_500_000)
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_nothing(server, tmp_path):
    """Files of this process may have 1 MB."""
    server.content, server.etag = CONTENT, '"one"'
    code = (
        "import resource, signal, sys\nfrom keras_rcnn.download import downloaded\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "try:\n    downloaded(sys.argv[1], sys.argv[2], '00', 2048000).__enter__()\n"
        "except OSError as error:\n    sys.exit(f'{type(error).__name__} {error}')"
    )
    done = subprocess.run([sys.executable, "-c", code, server.url, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert re.search(r"OSError .*cannot be kept there \(File too large\).* It needs 2.0 MB", done.stderr), done.stderr
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_not_ours(server, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"cannot be kept there \(Permission denied\).*KERAS_RCNN_HOME"):
        get(server, tmp_path)


# === Two at once ===


def test_the_second_waits_for_the_first(server, tmp_path, caplog):
    server.content = CONTENT
    found, inside = [], threading.Event()

    def second():
        with downloaded(server.url, tmp_path, sha256(CONTENT)) as path:
            found.append(path.read_bytes() == CONTENT)

    with downloaded(server.url, tmp_path, sha256(CONTENT)) as path:
        thread = threading.Thread(target=second)
        thread.start()
        inside.wait(1)
        assert found == [] and path.read_bytes() == CONTENT
        assert server.requests == 1
    thread.join(20)
    assert found == [True] and names(tmp_path) == []
    assert f"Process {os.getpid()} downloads weights.pth (lock" in caplog.text


def test_a_thread_does_not_wait_for_itself(server, tmp_path):
    server.content = b"x"
    already = pytest.raises(DownloadError, match="This thread downloads weights.pth already")
    with downloaded(server.url, tmp_path, sha256(b"x")), already:
        get(server, tmp_path)


def test_the_lock_of_a_process_that_was_killed_is_free(server, tmp_path):
    server.content, server.pause = CONTENT, 60
    code = (
        "import sys\nfrom keras_rcnn.download import downloaded\n"
        "downloaded(sys.argv[1], sys.argv[2], sys.argv[3]).__enter__()"
    )
    arguments = [sys.executable, "-c", code, server.url, tmp_path, sha256(CONTENT)]
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL) as killed:
        while not server.requests:
            time.sleep(0.05)
        killed.kill()
    assert [name for name in names(tmp_path) if name.endswith(".lock")]
    server.pause = 0
    before = time.monotonic()
    assert get(server, tmp_path) == CONTENT
    assert time.monotonic() - before < 5
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.b/c/d.pth", "d.pth"),
        ("https://a.b/d.pth?x=/../e", "d.pth"),
        ("https://a.b/..%2f..%2fetc%2fpasswd", "_.._etc_passwd"),
        ("https://a.b/", "a.b"),
        ("https://a.b/%1b[2Jx", "__2Jx"),
        ("https://a.b/" + "x" * 300, "x" * 100),
    ],
)
def test_names_on_the_disk(url, name):
    assert download._name(url) == name
