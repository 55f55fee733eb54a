"""tools/reproduce.py: what is evaluated, what is held against what, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.layers import DetectionDecoder

TOOLS = Path(__file__).resolve().parents[1] / "tools"
SIDE = 40
BOX = [8, 8, 16, 16]  # x, y, width, height


@pytest.fixture
def reproduce(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import pages.reproduce

    metrics = {"bbox": {"AP": 0.5}, "dataset": "COCO val2017, published by someone"}
    records = [{"name": "known", "metrics": metrics}, {"name": "own", "metrics": {"bbox": {"AP": 0.5}, "dataset": "x"}}]
    monkeypatch.setattr(pages.reproduce, "list_presets", lambda: records)
    monkeypatch.setattr(pages.reproduce, "from_preset", Fake)
    monkeypatch.setattr(pages.reproduce, "detect_all", detect_all)
    return pages.reproduce


class Fake:
    """A detector as far as the tool looks at one."""

    def __init__(self, name):
        self.parts = {"decoder": DetectionDecoder()}


def detect_all(model, dataset, batch_size, progress):
    """The object of every second photo, and so an AP near a half."""
    x, y, width, height = BOX
    found = {"boxes": [[x, y, x + width, y + height]], "scores": [0.9], "labels": [0]}
    kinds = {"boxes": ((0, 4), np.float32), "scores": ((0,), np.float32), "labels": ((0,), np.int32)}
    nothing = {key: np.zeros(*kind) for key, kind in kinds.items()}
    found = {key: np.array(value, kinds[key][1]) for key, value in found.items()}
    return [found if i % 2 else nothing for i in range(len(dataset))]


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    images, annotations = [], []
    for i in range(1, 7):
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / f"val2017/{i:012}.jpg")
        images.append({"id": i, "file_name": f"{i:012}.jpg", "height": SIDE, "width": SIDE})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": BOX, "area": 256, "iscrowd": 0})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return tmp_path


def test_a_figure_beside_the_published_one(reproduce, coco, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "PHOTOS", 6)
    out = coco / "figures.json"
    assert reproduce.main(["known", "--coco", str(coco), "--json", str(out)]) == 1  # AP 0.505: 51 of 101 recalls
    assert "| known | box AP | 50.5 | 50.0 | +0.5 (off) |" in capsys.readouterr().out
    assert json.loads(out.read_text())["published"] == {"known": {"bbox": 0.5}}


def test_a_part_of_the_photos_has_no_verdict(reproduce, coco, capsys):
    assert reproduce.main(["known", "--coco", str(coco), "--photos", "3"]) == 0
    out = capsys.readouterr().out
    assert "(off)" not in out and "not the 5000 photos" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["unknown", "--coco", "."], "no preset 'unknown'"),
        (["own", "--coco", "."], r"no published AP on COCO val2017 \(x\)"),
        (["known", "--coco", "nowhere"], "instances_val2017.json is not there"),
        (["known", "--coco", ".", "--photos", "0"], "a number from 1"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(reproduce, words, message, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(words)
    assert re.search(message, capsys.readouterr().err)
