"""`--tta` of detect and evaluate."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_rcnn import cli
from keras_rcnn.data import save_coco
from keras_rcnn.evaluation import AugmentedDetector, evaluate
from keras_rcnn.presets import from_preset, save_preset
from tests.models.tiny import shapes, tiny_detector


@pytest.mark.slow
def test_mirror_images_on_the_command_line(tmp_path, capsys):
    data = shapes(2)
    save_preset(tiny_detector(class_names=data.class_names), tmp_path / "preset")
    photo = tmp_path / "photo.png"
    Image.fromarray(data[0].image).save(photo)
    model = AugmentedDetector(from_preset(tmp_path / "preset"), sizes=(80,))
    expected = model.detect(data[0].image, score=0.01)
    options = ["--preset", str(tmp_path / "preset"), "--tta"]
    file = tmp_path / "boxes.json"
    arguments = [str(photo), *options, "--size", "80", "--score", "0.01", "--out", str(tmp_path), "--json", str(file)]
    assert cli.main(["detect", *arguments]) == 0
    (found,) = json.loads(file.read_text())
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.01)

    for record in data:
        Image.fromarray(record.image).save(tmp_path / f"{record.image_id}.png")
        record.image = str(tmp_path / f"{record.image_id}.png")
    save_coco(data, tmp_path / "data.json")
    source = ["--coco", str(tmp_path / "data.json"), "--images", str(tmp_path), "--json", str(file)]
    assert cli.main(["evaluate", str(tmp_path / "preset"), *source, "--tta"]) == 0
    plain = AugmentedDetector(from_preset(tmp_path / "preset"))
    assert json.loads(file.read_text())["bbox"]["AP"] == evaluate(plain, data, progress=False)["bbox"]["AP"]


def test_a_server_is_not_asked_twice(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    assert cli.main(["detect", str(tmp_path / "photo.png"), "--server", "http://localhost:1/x", "--tta"]) != 0
    assert "--tta is not for --server" in capsys.readouterr().err
