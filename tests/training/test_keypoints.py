"""Keypoints from a COCO file to a trained preset."""

import pytest
from PIL import Image

from keras_rcnn.cli.command_line import main
from keras_rcnn.data import load_coco, save_coco
from keras_rcnn.presets import from_preset, read_preset
from keras_rcnn.training import RecipeError, Settings
from keras_rcnn.training.build import build_model, check, detector_of
from tests.models.keypoint_figures import SKELETON, figures

SMALL = {
    "keypoints": True,
    "backbone_weights": "random",
    "min_size": 96,
    "max_size": 96,
    "fpn_channels": 16,
    "box_head_units": (16,),
    "keypoint_head_channels": (16,),
    "roi_samples": 16,
    "post_nms_proposals": (50, 20),
}


@pytest.fixture
def folder(tmp_path):
    data = figures(4)
    for record in data:
        path = tmp_path / f"{record.image_id}.png"
        Image.fromarray(record.image).save(path)
        record.image = path
    save_coco(data, tmp_path / "figures.json")
    return tmp_path


def test_a_detector_for_the_datas_keypoints():
    settings = Settings(**SMALL)
    assert check(settings.replace(train={"data": "a"}), detector_of(settings)) == []
    model = build_model(settings, ["figure"], skeleton=SKELETON)
    assert model.skeleton.names == SKELETON.names and model.skeleton.bones == SKELETON.bones
    branch = model.parts["keypoint_branch"]
    assert branch.head.conv_channels == (16,)
    assert branch.pool.canonical_size == model.parts["box_pool"].canonical_size
    with pytest.raises(RecipeError, match="the training data have no keypoints"):
        build_model(settings, ["figure"])
    fast = settings.replace(detector="fast_rcnn", train={"data": "a"})
    assert any("FastRCNN has none" in problem for problem in check(fast, detector_of(fast)))


@pytest.mark.slow
def test_the_command_trains_keypoints(folder, capsys):
    options = [f"--set={key}={value!r}" for key, value in SMALL.items()]
    source = ["--coco", str(folder / "figures.json"), "--images", str(folder)]
    val = ["--val-coco", str(folder / "figures.json"), "--val-images", str(folder)]
    out = folder / "out"
    assert not main(["train", *source, *val, "--epochs", "1", "--batch-size", "2", *options, "--out", str(out)])
    model = from_preset(out)
    assert model.skeleton.names == SKELETON.names
    assert "keypoints" in read_preset(out)["metrics"]
    assert "val_keypoints_AP50" in (out / "history.csv").read_text()
    assert not main(["evaluate", str(out), *source])
    assert "keypoints" in capsys.readouterr().out
    assert not main(["detect", str(folder / "1.png"), "--preset", str(out), "--out", str(folder / "found")])
    # and on from there, without being told
    assert not main(["train", "--base", str(out), *source, "--epochs", "1", "--out", str(folder / "more")])
    assert from_preset(folder / "more").skeleton is not None
    assert load_coco(folder / "figures.json", folder).skeleton == SKELETON
