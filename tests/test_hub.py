"""Presets by handle: the hubs' own packages, against servers on this machine (tests/hubs.py)."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import keras_rcnn
from keras_rcnn.cli import main
from keras_rcnn.hub import Handle, fetched, is_handle, parse_handle
from keras_rcnn.preset_file import PRESET, WEIGHTS, PresetError
from keras_rcnn.presets import detector_class, from_preset, save_preset
from tests.models.tiny import tiny_detector

HF, KAGGLE = "hf://someone/figs", "kaggle://someone/figs/keras/small"
NAME = "someone/figs"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = tiny_detector(class_names=["fig", "date"])
    return model, save_preset(model, tmp_path_factory.mktemp("hub") / "figs", license="MIT")


@pytest.fixture(scope="module")
def files(saved):
    """What a repository has: a preset, and what nobody asked for."""
    preset = {path.name: path.read_bytes() for path in saved[1].iterdir()}
    return {**preset, "README.md": b"# figs", "modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04"}


def small(weights=None, **record):
    """A preset that is checked, and too small to be built."""
    detector = {"class_name": "FasterRCNN", "registered_name": "keras_rcnn>FasterRCNN"}
    backbone = {"class_name": "ResNet", "registered_name": "keras_rcnn>ResNet", "config": {"depth": 50}}
    detector["config"] = {"num_classes": 2, "backbone": backbone}
    record = {"name": "figs", "detector": detector, "weights": {"file": WEIGHTS}, **record}
    weights = save({"a": np.zeros(300_000, np.float32)}) if weights is None else weights
    return {PRESET: json.dumps(record).encode(), WEIGHTS: weights}


def same(model, other):
    """Whether two detectors have the same weights."""
    theirs = {weight.path: weight for weight in other.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(theirs[weight.path], weight, err_msg=weight.path)


def refused(handle, match):
    with pytest.raises(PresetError, match=match) as caught:
        fetched(handle)
    assert str(caught.value).startswith(handle) and len(str(caught.value)) < 700
    return str(caught.value)


# === Handles ===


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HF, Handle("hf", NAME)),
        (f"{HF}/", Handle("hf", NAME)),
        (f"{HF}@v1.0", Handle("hf", NAME, "v1.0")),
        (f"{HF}@v1.0/small/320 px", Handle("hf", NAME, "v1.0", "small/320 px")),
        (f"{HF}@refs/pr/12/small", Handle("hf", NAME, "refs/pr/12", "small")),
        (f"{HF}@new%2fheads", Handle("hf", NAME, "new/heads")),
        ("hf://a/b/c", Handle("hf", "a/b", None, "c")),
        (KAGGLE, Handle("kaggle", "someone/figs/keras/small")),
        (f"{KAGGLE}/12", Handle("kaggle", "someone/figs/keras/small", "12")),
    ],
)
def test_handles(text, parts):
    assert parse_handle(text) == parts
    assert parse_handle(str(parts)) == parts
    assert is_handle(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf://", "hf:/", "hf://a", "hf://a/", "hf:///a/b", "hf://a/b/../..", "hf://a/../b", "hf://../../etc", "hf://a/b//c",
        "hf://a/b@", "hf://a/b@../c", "hf://a/b@..", "hf://a/b@%2Fetc", "hf://a/b@-x", "hf://a/b@x%2F..%2Fy", "hf://a/b/.git",
        "hf://a/b/c\\d", "hf://a/b/c\n", "hf://a/b?x=1", "hf://a b/c", "hf://a/b/c@main", "hf://a/b/*", "hf://a/b/[x]",
        "hf://user:secret@host/a/b", "hf://a--x/b", "HF://a/b", "hf://a/" + "b" * 200, "hf://a/b/" + "x/" * 9 + "..",
        "kaggle://", "kaggle://a/b", "kaggle://a/b/keras", "kaggle://a/b/pyTorch/c", "kaggle://a/b/keras/c/0",
        "kaggle://a/b/keras/c/x", "kaggle://a/b/keras/c/1/2", "kaggle://a/../keras/c", "kaggle://a/b/keras/c@1",
    ],
)  # fmt: skip
def test_what_is_no_handle(text):
    with pytest.raises(PresetError, match="is no handle.* written|is no handle: write|is no branch"):
        from_preset(text)


def test_a_path_is_no_handle():
    """It has lost a slash, and would be told to be an unknown name."""
    with pytest.raises(PresetError, match="pathlib.Path loses a slash.*as text"):
        from_preset(Path(HF))
    assert not is_handle("hf") and not is_handle("runs/hf:/x") and not is_handle(3)


@pytest.mark.parametrize("handle", [HF, KAGGLE])
def test_without_the_package(handle, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    package = "huggingface_hub" if handle == HF else "kagglehub"
    with pytest.raises(PresetError, match=f"needs the package {package}: pip install {package}, or"):
        from_preset(handle)


# === Hugging Face ===


def test_a_preset_of_hugging_face(hf, saved, files):
    hf.put(NAME, files)
    same(saved[0], from_preset(HF))
    folder = fetched(HF)
    assert sorted(path.name for path in folder.iterdir()) == [PRESET, WEIGHTS]
    asked = [path for verb in ("GET", "HEAD") for path in hf.fetched(verb) if path.startswith(f"/{NAME}")]
    assert {path.rsplit("/", 1)[1] for path in asked} == {PRESET, WEIGHTS}
    assert detector_class(HF) is keras_rcnn.FasterRCNN
    assert from_preset(HF, class_names=["date", "kiwi"]).class_names == ["date", "kiwi"]


def test_revisions_and_folders(hf):
    hf.put(NAME, {f"nets/small/{name}": content for name, content in small(title="first").items()})
    hf.put(NAME, {f"nets/small/{name}": content for name, content in small(title="second").items()}, "new/heads")
    titles = [
        json.loads((fetched(handle) / PRESET).read_text())["title"]
        for handle in (f"{HF}/nets/small", f"{HF}@main/nets/small", f"{HF}@new%2Fheads/nets/small")
    ]
    assert titles == ["first", "first", "second"]
    commit = fetched(f"{HF}/nets/small").parents[1].name
    assert fetched(f"{HF}@{commit}/nets/small") == fetched(f"{HF}/nets/small")


def test_both_files_are_of_one_commit(hf, monkeypatch):
    """Someone pushes between the two downloads."""
    import huggingface_hub

    hf.put(NAME, small())
    real = huggingface_hub.hf_hub_download

    def download(**kwargs):
        path = real(**kwargs)
        if kwargs["filename"] == PRESET:
            repo = hf.repos[NAME]["revisions"]
            repo["old"] = repo["main"]
            repo["main"] = small(save({"b": np.ones(3, np.float32)}))
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert (fetched(HF) / WEIGHTS).stat().st_size > 1_000_000


def test_a_cached_preset_needs_no_network(hf, monkeypatch):
    from huggingface_hub import constants

    hf.put(NAME, small())
    folder = fetched(HF)
    hf.requests.clear()
    assert fetched(HF) == folder  # is it still the newest? One question, and nothing is downloaded again
    assert hf.fetched("GET") == [] and len(hf.fetched("HEAD")) == 1
    for status in (429, 500, 503):
        hf.status = status
        assert fetched(HF) == folder
    hf.close()
    assert fetched(HF) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetched(HF) == folder
    assert "HF_HUB_OFFLINE forbids the network" in refused("hf://someone/dates", "unset it once")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    refused(
        "hf://someone/dates", "cannot be reached.*Try again when there is a network, or set HF_ENDPOINT to a mirror"
    )


def test_what_a_new_version_changes_is_fetched(hf):
    hf.put(NAME, small())
    old = fetched(HF)
    hf.put(NAME, small(title="better"))
    hf.requests.clear()
    new = fetched(HF)
    assert new != old and (old / PRESET).is_file()
    assert [path.rsplit("/", 1)[1] for path in hf.fetched() if NAME in path] == [PRESET]  # the weights are the same


def test_private_repositories(hf, monkeypatch):
    hf.put(NAME, small(), private=True)
    hf.token = "hf_mine"
    refused(HF, r"no such repository, or it is private.*`hf auth login`.*HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(HF, "private")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert (fetched(HF) / WEIGHTS).is_file()


def test_what_hugging_face_does_not_give(hf):
    hf.put(NAME, {"config.json": b"{}"})
    refused("hf://someone/dates", "no such repository")
    refused(HF, "has no preset.json at its top")
    refused(f"{HF}/small", "has no preset.json in small")
    refused(f"{HF}@v9", "no branch, tag or commit 'v9'")
    hf.put(NAME, {PRESET: small()[PRESET]})
    refused(HF, f"has no {WEIGHTS} at its top")
    hf.gated.add(NAME)
    refused(HF, "gives it to those who ask")
    for status, words in {429: "too many requests. Wait", 403: "may not do that", 503: "status 503.*Try again"}.items():
        hf.status = status
        refused("hf://someone/dates", words)


def test_a_broken_line_is_mended(hf):
    hf.put(NAME, small())
    hf.cut = 500_000
    assert (fetched(HF) / WEIGHTS).read_bytes() == small()[WEIGHTS]
    assert len([path for path in hf.fetched() if path.endswith(WEIGHTS)]) == 2


def test_a_full_disk(hf, monkeypatch, tmp_path):
    from huggingface_hub import constants

    hf.put(NAME, small())
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    refused(HF, "the cache cannot be written to.*set HF_HOME")


def test_the_environment_and_a_second_process(hf, tmp_path):
    """HF_ENDPOINT is a mirror, HF_HUB_CACHE the cache; the one who comes second waits, and the weights come once."""
    hf.put(NAME, small())
    hf.pause = 0.5
    code = f"from keras_rcnn.hub import fetched; print(fetched({HF!r}))"
    environment = {"HF_ENDPOINT": hf.url, "HF_HUB_CACHE": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    while not [path for path in hf.fetched() if path.endswith(WEIGHTS)]:
        time.sleep(0.02)
        assert process.poll() is None
    folder = fetched(HF)
    assert process.communicate(timeout=60)[0].strip() == str(folder)
    assert (folder / WEIGHTS).read_bytes() == small()[WEIGHTS]
    assert len([path for path in hf.fetched() if path.endswith(WEIGHTS)]) == 1


# === Strangers ===


def both(hub, files):
    """The handle of these files on one hub."""
    if hasattr(hub, "repos"):
        hub.put(NAME, files)
        return HF
    hub.models["someone/figs/keras/small"] = [files]
    return KAGGLE


@pytest.fixture(params=["hf", "kaggle"])
def hub(request):
    return request.getfixturevalue(request.param)


def test_weights_that_are_no_safetensors(hub):
    refused(both(hub, small(pickle.dumps({"a": 1}, 2))), "is no .safetensors file")


@pytest.mark.parametrize(
    "weights",
    [
        {"file": "model.pkl"},
        {"file": "model.pth"},
        {
            "url": "http://169.254.169.254/x",
            "file": WEIGHTS,
            "sha256_prefix": "0" * 8,
            "converter": "torchvision",
            "model": "x",
        },
    ],
)
def test_weights_from_elsewhere(hub, weights):
    refused(both(hub, {**small(), PRESET: small_with(weights)}), "weights from elsewhere.*None were downloaded")
    assert not [path for path in hub.fetched() if path.endswith((WEIGHTS, ".pkl", ".pth"))]


def small_with(weights):
    record = json.loads(small()[PRESET])
    return json.dumps({**record, "weights": weights}).encode()


def test_a_hostile_preset(hub):
    record = json.loads(small()[PRESET])
    record["detector"]["config"]["backbone"] = {"class_name": "Lambda", "module": "keras.layers", "config": {}}
    handle = both(hub, {**small(), PRESET: json.dumps(record).encode()})
    with pytest.raises(PresetError, match="could run code"):
        from_preset(handle)
    handle = both(hub, {**small(), PRESET: small_with({"file": "../../evil.safetensors"})})
    with pytest.raises(PresetError):
        from_preset(handle if hasattr(hub, "repos") else f"{handle}/1")


def test_more_than_the_limits(hf, monkeypatch):
    hf.put(NAME, small())
    monkeypatch.setenv("KERAS_RCNN_MAX_DOWNLOAD_BYTES", "1000")
    refused(HF, "weights.safetensors has 1.2 MB, more than 0.0 MB")
    assert not [path for path in hf.fetched() if path.endswith(WEIGHTS)]


def test_a_preset_beyond_the_limit(hf):
    hf.put(NAME, {**small(), PRESET: b" " * (2**22 + 1)})
    refused(HF, "preset.json has 4.2 MB, more than")
    assert not [path for path in hf.fetched() if NAME in path]


def test_a_preset_without_weights(hub):
    record = json.loads(small()[PRESET])
    del record["weights"]
    with pytest.raises(PresetError, match="has no weights. Train it"):
        from_preset(both(hub, {PRESET: json.dumps(record).encode()}))


def test_damaged_weights(hf, files):
    content = bytearray(files[WEIGHTS])
    content[-1] ^= 1
    hf.put(NAME, {**files, WEIGHTS: bytes(content)})
    with pytest.raises(PresetError, match="SHA-256 is another"):
        from_preset(HF)


# === Kaggle ===


def test_a_preset_of_kaggle(kaggle, saved, files):
    kaggle.models["someone/figs/keras/small"] = [small(), files]
    same(saved[0], from_preset(KAGGLE))
    assert fetched(KAGGLE).name == "2" and fetched(f"{KAGGLE}/1").name == "1"
    assert sorted(path.name for path in fetched(KAGGLE).iterdir()) == [PRESET, WEIGHTS]


def test_kaggles_cache(kaggle):
    kaggle.models["someone/figs/keras/small"] = [small()] * 10
    for version in (2, 10):
        folder = fetched(f"{KAGGLE}/{version}")
    kaggle.requests.clear()
    assert fetched(f"{KAGGLE}/10") == folder and not kaggle.requests
    kaggle.close()
    assert fetched(KAGGLE) == folder
    refused("kaggle://someone/dates/keras/small", "cannot be reached. It is not in the cache")


@pytest.mark.parametrize("hub", ["hf", "kaggle"])
def test_offline_the_cache_serves_and_nothing_is_asked_for(hub, request, monkeypatch):
    server, handle = request.getfixturevalue(hub), HF if hub == "hf" else KAGGLE
    if hub == "hf":
        server.put(NAME, small())
    else:
        server.models["someone/figs/keras/small"] = [small()] * 2
    folder = fetched(handle)
    server.requests.clear()
    monkeypatch.setenv("KERAS_RCNN_OFFLINE", "1")
    assert fetched(handle) == folder
    refused(handle.replace("figs", "dates"), "not in the cache.*KERAS_RCNN_OFFLINE forbids the network. Unset it once")
    assert not server.requests


def test_a_broken_download_of_kaggle_goes_on(kaggle):
    kaggle.models["someone/figs/keras/small"] = [small()]
    kaggle.cut = 1_100_000
    refused(KAGGLE, "cannot be reached.*Try again")
    assert (fetched(KAGGLE) / WEIGHTS).read_bytes() == small()[WEIGHTS]
    assert "bytes=1048576-" in kaggle.ranges


def test_what_kaggle_does_not_give(kaggle):
    kaggle.models["someone/figs/keras/small"] = [{"config.json": b"{}"}]
    refused("kaggle://someone/dates/keras/small", "no such model, variation or version")
    refused(KAGGLE, "it has no preset.json")
    refused(f"{KAGGLE}/9", "no such model, variation or version")
    words = {401: r"private.*kagglehub.login\(\)", 403: "consent", 429: "too many requests", 500: "status 500"}
    for status, match in words.items():
        kaggle.status = status
        refused(KAGGLE, match)


def test_kaggles_lock_is_ours(kaggle):
    """kagglehub has none: two of them would write into one file."""
    kaggle.models["someone/figs/keras/small"] = [small()]
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetched(KAGGLE))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] and len(found) == 2
    assert len([path for path in kaggle.fetched() if path.endswith(WEIGHTS)]) == 1


# === The command ===


def test_the_commands_take_handles(hf, tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(b"")
    for handle, words in {HF: "there is no such repository", "hf://a": "'hf://a' is no handle: one is written"}.items():
        for command in (
            ["detect", str(tmp_path / "photo.png"), "--preset", handle],
            ["export", handle, "--format", "onnx", "--out", str(tmp_path / "x.onnx")],
        ):
            assert main(command) == 2
            assert words in capsys.readouterr().err
    assert main(["evaluate", HF, "--csv", "x.csv", "--images", str(tmp_path), "--store-thresholds"]) == 2
    assert "is on a hub" in capsys.readouterr().err


def test_a_training_starts_from_a_handle(hf, files):
    from keras_rcnn.training.build import detector_of
    from keras_rcnn.training.settings import Settings

    hf.put(NAME, files)
    assert detector_of(Settings(base=HF)) is keras_rcnn.FasterRCNN
