"""Files of unknown SHA-256: recorded at the first download, compared ever after; mirrors, and no network."""

import hashlib
import json
import re
import shutil

import pytest

import keras_rcnn
from keras_rcnn import download
from keras_rcnn.download import DownloadError
from keras_rcnn.pins import Pin, check_pin, pins_path, read_pins, record_pin
from keras_rcnn.preset_file import PRESET, PresetError
from keras_rcnn.presets import from_preset
from tests.test_presets import files, published  # noqa: F401 (a fixture)

URL = "https://a.b/model_final_f10217.pkl"
ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def unknown(published, server, tmp_path):  # noqa: F811
    """`published`'s preset, of whose file only the MD5's beginning is known; its name and its record."""
    path = tmp_path / "zoo" / published[0] / PRESET
    record = json.loads(path.read_text())
    del record["weights"]["sha256_prefix"]
    record["weights"] |= {"md5_prefix": hashlib.md5(server.content).hexdigest()[:6], "size": len(server.content) - 99}
    path.write_text(json.dumps(record))
    return published[0], path, record


def forget(tmp_path):
    """As on the day when somebody has deleted what was converted."""
    shutil.rmtree(tmp_path / "home" / "presets")


# === The first download, and the next ===


def test_the_first_download_is_recorded(server, unknown, tmp_path, capsys):
    name, _, _ = unknown
    assert from_preset(name).num_classes == 2
    digest = hashlib.sha256(server.content).hexdigest()
    (pin,) = read_pins().items()
    assert pin[0] == server.url and pin[1][:3] == (name, digest, len(server.content))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", pin[1].date)
    assert len([path for path in files(tmp_path / "home") if not path.startswith("presets/")]) == 1
    before = pins_path().read_bytes()
    forget(tmp_path)
    assert from_preset(name).num_classes == 2 and server.requests == 2
    assert pins_path().read_bytes() == before
    assert keras_rcnn.cli.main(["presets", "--pins"]) == 0
    out = capsys.readouterr().out
    assert digest in out and name in out and server.url in out and str(pins_path()) in out


def test_another_file_at_the_next_download_is_refused(server, unknown, tmp_path):
    name, path, record = unknown
    from_preset(name)
    forget(tmp_path)
    first, server.content = server.content, server.content + b" "  # a zip with something behind it is still one
    record["weights"]["md5_prefix"] = hashlib.md5(server.content).hexdigest()[:6]  # the worst case: it fits
    path.write_text(json.dumps(record))
    old, new = (hashlib.sha256(content).hexdigest() for content in (first, server.content))
    with pytest.raises(PresetError) as error:
        from_preset(name)
    for words in (new, old, str(pins_path()), "was not used", "delete its line", "keras-rcnn convert torchvision"):
        assert words in str(error.value)
    assert files(tmp_path / "home") == ["pins.json"]
    by_hand = tmp_path / "home" / "downloads" / "weights.pth"
    by_hand.write_bytes(server.content)
    with pytest.raises(PresetError, match=f"{re.escape(str(by_hand))} has the SHA-256 {new}"):
        from_preset(name)
    pins_path().write_text("".join(line for line in pins_path().read_text().splitlines(True) if old not in line))
    assert from_preset(name).num_classes == 2
    assert read_pins()[server.url].sha256 == new


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"md5_prefix": "000000"}, "(?s)its MD5 begins with .* instead of 000000.*keras-rcnn convert"),
        ({"model": "fasterrcnn_resnet50_fpn"}, "are not what they should be"),
    ],
)
def test_what_is_not_the_file_is_not_recorded(server, unknown, tmp_path, changed, message):
    name, path, record = unknown
    record["weights"].update(changed)
    path.write_text(json.dumps(record))
    with pytest.raises(PresetError, match=message):
        from_preset(name)
    assert files(tmp_path / "home") == []


def test_far_more_bytes_than_announced_are_not_read(server, unknown, tmp_path):
    name, path, record = unknown
    record["weights"]["size"] = len(server.content) // 2 - 1
    path.write_text(json.dumps(record))
    with pytest.raises(PresetError, match="should have no more than"):
        from_preset(name)


def test_a_strangers_file_has_a_known_hash(unknown, tmp_path):
    name, path, _ = unknown
    (tmp_path / "strange" / name).mkdir(parents=True)
    shutil.copy(path, tmp_path / "strange" / name)
    with pytest.raises(PresetError, match="weights has a url, and no sha256_prefix"):
        from_preset(tmp_path / "strange" / name)


# === What is recorded ===


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path))
    return tmp_path


def test_the_first_record_stays(home, capsys):
    assert read_pins() == {}
    assert keras_rcnn.cli.main(["presets", "--pins"]) == 0
    assert "No file" in capsys.readouterr().out
    check_pin(URL, ONE, URL)
    record_pin(URL, "m", ONE, 5)
    record_pin(URL, "m", TWO, 6)
    record_pin(URL + "x", "m", TWO, 6)
    assert [pin.sha256 for pin in read_pins().values()] == [ONE, TWO]
    check_pin(URL, ONE, URL)
    with pytest.raises(DownloadError, match=f"{TWO}, and on .* it had {ONE}"):
        check_pin(URL, TWO, "here")
    assert files(home) == ["pins.json"]
    lines = pins_path().read_text().splitlines()
    assert len(lines) == 4 and json.loads("\n".join(lines))[URL] == Pin(*read_pins()[URL])._asdict()


WRONG = {"preset": "m", "sha256": "1", "size": 1, "date": ""}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"u": 5}', '{"u": {"sha256": "1"}}', json.dumps({"u": WRONG})])
def test_a_damaged_record_is_not_passed_over(home, text):
    pins_path().write_text(text)
    with pytest.raises(DownloadError, match=f"{re.escape(str(pins_path()))}.* cannot be read. Mend it, or delete it"):
        check_pin(URL, ONE, URL)


# === Mirrors, and no network ===


def test_a_mirror_takes_the_place_of_scheme_and_host(monkeypatch):
    assert download.address("https://a.b/c/d.pth?e=f") == "https://a.b/c/d.pth?e=f"
    monkeypatch.setenv("KERAS_RCNN_MIRROR", "http://mirror:8000/zoo/")
    assert download.address("https://a.b/c/d.pth?e=f") == "http://mirror:8000/zoo/c/d.pth?e=f"
    for wrong in ("mirror", "file:///tmp", "https://", "https://a.b?x=1"):
        monkeypatch.setenv("KERAS_RCNN_MIRROR", wrong)
        with pytest.raises(DownloadError, match=f"KERAS_RCNN_MIRROR is .*, not {re.escape(repr(wrong.rstrip('/')))}"):
            download.address(URL)


def test_a_mirrored_file_is_checked_and_recorded_under_its_publishers_address(server, unknown, monkeypatch):
    name, path, record = unknown
    record["weights"]["url"] = "https://weights.invalid/weights.pth"
    path.write_text(json.dumps(record))
    monkeypatch.setenv("KERAS_RCNN_MIRROR", server.url.rpartition("/")[0])
    assert from_preset(name).num_classes == 2
    assert list(read_pins()) == ["https://weights.invalid/weights.pth"]


@pytest.mark.parametrize("known", [True, False])
def test_offline_nothing_is_asked_for(server, unknown, tmp_path, monkeypatch, known):
    name, path, record = unknown
    if known:
        record["weights"]["sha256_prefix"] = hashlib.sha256(server.content).hexdigest()
        record["weights"]["size"] = len(server.content)
        path.write_text(json.dumps(record))
    monkeypatch.setenv("KERAS_RCNN_OFFLINE", "1")
    with pytest.raises(PresetError, match="(?s)KERAS_RCNN_OFFLINE forbids the network. Unset.*keras-rcnn convert"):
        from_preset(name)
    assert server.requests == 0
    monkeypatch.setenv("KERAS_RCNN_OFFLINE", "0")
    from_preset(name)
    monkeypatch.setenv("KERAS_RCNN_OFFLINE", "1")
    assert from_preset(name).num_classes == 2  # from the cache
    assert server.requests == 1
