"""Publishing presets: to servers on this machine (tests/hubs.py), by the hubs' own packages."""

import json

import numpy as np
import pytest
from PIL import Image

import keras_rcnn
from keras_rcnn.cli import main
from keras_rcnn.hub_push import KAGGLE_LICENSES
from keras_rcnn.model_card import LICENSES
from keras_rcnn.preset_file import PRESET, WEIGHTS, PresetError
from keras_rcnn.presets import from_preset, read_preset, save_preset
from tests.models.tiny import tiny_detector

HF, KAGGLE = "hf://someone/figs", "kaggle://someone/figs/keras/small"
NAME = "someone/figs"
METRICS = {"bbox": {"AP": 0.41, "AP50": 0.7, "APl": None}, "dataset": "orchard, 40 photos"}


@pytest.fixture(scope="module")
def model():
    return tiny_detector(class_names=["fig", "date"])


@pytest.fixture
def folder(model, tmp_path):
    folder = save_preset(model, tmp_path / "figs", license="CC-BY-4.0", source="300 photos", metrics=METRICS)
    Image.new("RGB", (8, 8)).save(folder / "detected.png")
    Image.new("RGB", (8, 8)).save(folder / "photo_of_my_cat.png")
    (folder / "recipe.py").write_text("epochs = 3\n")
    return folder


def published(hub, revision="main"):
    return hub.repos[NAME]["revisions"][revision]


def same(model, other):
    theirs = {weight.path: weight for weight in other.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(theirs[weight.path], weight, err_msg=weight.path)


def test_a_folder_goes_to_hugging_face_and_comes_back(hf, model, folder):
    address = keras_rcnn.push_preset(folder, HF, message="First figs")
    assert address.startswith(f"{hf.url}/{NAME}/commit/") and hf.repos[NAME]["message"] == "First figs"
    files = published(hf)
    assert sorted(files) == ["README.md", "detected.png", PRESET, WEIGHTS]
    assert files[PRESET] == (folder / PRESET).read_bytes() and files[WEIGHTS] == (folder / WEIGHTS).read_bytes()
    card = files["README.md"].decode()
    assert f'keras_rcnn.from_preset("{HF}")' in card and "![figs](detected.png)" in card and "300 photos" in card
    same(model, from_preset(HF))


def test_a_model_is_pushed(hf, model):
    keras_rcnn.push_preset(model, f"{HF}@next/nets/small", license="MIT", title="Figs and dates")
    assert published(hf) == {}
    files = published(hf, "next")
    assert sorted(files) == [f"nets/small/{name}" for name in ("README.md", PRESET, WEIGHTS)]
    record = json.loads(files[f"nets/small/{PRESET}"])
    assert (record["name"], record["title"], record["license"]) == ("small", "Figs and dates", "MIT")
    assert f"{HF}@next/nets/small" in files["nets/small/README.md"].decode()


def test_what_is_said_goes_before_the_folder(hf, folder, monkeypatch):
    before = (folder / PRESET).read_bytes()
    monkeypatch.setattr("keras_rcnn.hub_push.from_preset", lambda folder: None)
    keras_rcnn.push_preset(folder, HF, license="MIT", notes="Ripe ones.", title=None)
    record = json.loads(published(hf)[PRESET])
    assert record["license"] == "MIT" and record["notes"] == "Ripe ones." and record["source"] == "300 photos"
    assert (folder / PRESET).read_bytes() == before
    assert record["detector"] == read_preset(folder)["detector"]


def test_a_card_of_ones_own(hf, folder, monkeypatch):
    monkeypatch.setattr("keras_rcnn.hub_push.from_preset", lambda folder: None)
    (folder / "README.md").write_text("# My figs\n")
    keras_rcnn.push_preset(folder, HF)
    card = published(hf)["README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n") and card.endswith("---\n\n# My figs\n")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    keras_rcnn.push_preset(folder, HF)
    assert published(hf)["README.md"].decode() == "---\nlicense: mit\n---\n# Mine\n"


@pytest.mark.parametrize("handle", [HF, KAGGLE])
@pytest.mark.parametrize("spoil", ["license", "weights", "url", "damaged", "preset", "pickle"])
def test_nothing_leaves_when_something_is_missing(hf, kaggle, folder, handle, spoil):
    record = json.loads((folder / PRESET).read_text())
    match = {
        "license": r'does not say under which licence.*license="CC-BY-4.0".*`keras-rcnn push --license',
        "weights": "has no weights",
        "url": "downloads its weights from elsewhere",
        "damaged": "SHA-256 is another",
        "preset": "is no folder with a preset.json",
        "pickle": "on a hub it is a .safetensors file",
    }[spoil]
    if spoil in ("license", "weights"):
        del record[spoil]
    if spoil == "url":
        record["weights"] |= {"url": "https://x.org/a.pth", "sha256_prefix": "0" * 8, "converter": "x", "model": "x"}
    if spoil == "pickle":
        record["weights"]["file"] = "weights.pkl"
    (folder / PRESET).write_text(json.dumps(record))
    if spoil == "damaged":
        content = bytearray((folder / WEIGHTS).read_bytes())
        content[-1] ^= 1
        (folder / WEIGHTS).write_bytes(content)
    if spoil == "preset":
        (folder / PRESET).unlink()
    with pytest.raises(PresetError, match=match):
        keras_rcnn.push_preset(folder, handle)
    assert not hf.repos and not kaggle.models and not [one for one in hf.requests + kaggle.requests if "POST" in one]


@pytest.mark.parametrize(
    ("source", "handle", "options", "match"),
    [
        ("nuclei_mrcnn", HF, {}, r"is no folder.*push_preset\(from_preset\(NAME\)"),
        (HF, "hf://someone/else", {}, "is no folder"),
        (".", "hf://a", {}, "is no handle"),
        (".", f"{KAGGLE}/2", {}, "Kaggle numbers the versions itself"),
        (".", KAGGLE, {"private": False}, "kagglehub makes models private"),
        (".", f"{HF}@{'a1' * 20}", {}, "a commit cannot be changed"),
    ],
)
def test_where_nothing_can_be_pushed(hf, kaggle, source, handle, options, match):
    with pytest.raises(PresetError, match=match):
        keras_rcnn.push_preset(source, handle, **options)


def test_private_stays_private(hf, folder, monkeypatch):
    monkeypatch.setattr("keras_rcnn.hub_push.from_preset", lambda folder: None)
    hf.token = "hf_mine"
    with pytest.raises(PresetError, match=r"the token may not do that.*write to this repository"):
        keras_rcnn.push_preset(folder, HF, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    keras_rcnn.push_preset(folder, HF, private=True)
    assert hf.repos[NAME]["private"]
    hf.put("someone/public", {})
    with pytest.raises(PresetError, match="is there already, and public; nothing was uploaded"):
        keras_rcnn.push_preset(folder, "hf://someone/public", private=True)
    assert hf.repos["someone/public"]["revisions"]["main"] == {}


def test_a_hub_that_refuses(hf, folder, monkeypatch):
    monkeypatch.setattr("keras_rcnn.hub_push.from_preset", lambda folder: None)
    hf.bad_yaml = '"license" must be one of these'
    with pytest.raises(PresetError, match="Invalid metadata in README.md.*must be one of these. Nothing was uploaded"):
        keras_rcnn.push_preset(folder, HF)
    for status, match in {401: "log in", 429: "too many requests", 500: "status 500. Nothing was uploaded"}.items():
        hf.status = status
        with pytest.raises(PresetError, match=match):
            keras_rcnn.push_preset(folder, HF)
    hf.close()
    with pytest.raises(PresetError, match="cannot be reached. Nothing was uploaded"):
        keras_rcnn.push_preset(folder, HF)


def test_a_folder_goes_to_kaggle_and_comes_back(kaggle, model, folder):
    assert keras_rcnn.push_preset(folder, KAGGLE, private=True) == f"https://www.kaggle.com/models/{KAGGLE[9:]}"
    keras_rcnn.push_preset(folder, KAGGLE, message="Riper")
    first, second = kaggle.models["someone/figs/keras/small"]
    assert sorted(first) == ["README.md", "detected.png", PRESET, WEIGHTS] and first == second
    assert kaggle.made[0]["licenseName"] == "Attribution 4.0 International (CC BY 4.0)"
    assert kaggle.made[1]["versionNotes"] == "Riper"
    same(model, from_preset(KAGGLE))


def test_what_kaggle_refuses(kaggle, folder, monkeypatch):
    monkeypatch.setattr("keras_rcnn.hub_push.from_preset", lambda folder: None)
    with pytest.raises(PresetError, match="Kaggle has no licence 'Figs only'; nothing was uploaded. It has Apache 2.0"):
        keras_rcnn.push_preset(folder, KAGGLE, license="Figs only")
    assert not kaggle.requests
    kaggle.status = 403
    with pytest.raises(PresetError, match="log in"):
        keras_rcnn.push_preset(folder, KAGGLE)
    assert set(KAGGLE_LICENSES) <= LICENSES


def test_the_command(hf, folder, capsys, monkeypatch):
    monkeypatch.setattr("keras_rcnn.hub_push.from_preset", lambda folder: None)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hf.token = "hf_mine"
    assert main(["push", str(folder), HF, "--private", "--title", "Figs", "--message", "Hello"]) == 0
    assert f"{folder} is published: {hf.url}/{NAME}/commit/" in capsys.readouterr().out
    assert json.loads(published(hf)[PRESET])["title"] == "Figs" and hf.repos[NAME]["private"]
    assert hf.repos[NAME]["message"] == "Hello"
    assert main(["push", str(folder / "none"), HF]) == 2
    assert "is no folder with a preset.json" in capsys.readouterr().err
