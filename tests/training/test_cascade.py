"""The setting `cascade`, and the alternating training of a cascade."""

import numpy as np
import pytest

from keras_rcnn import layers
from keras_rcnn.models import FasterRCNN, FastRCNN, MaskRCNN
from keras_rcnn.training import Settings
from keras_rcnn.training.build import build_model, check, detector_of
from keras_rcnn.training.plans.alternating import _fast
from tests.models.tiny import tiny_detector

SMALL = {"backbone_weights": "random", "fpn_channels": 16, "box_head_units": (16,), "cascade": True}


@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN, FastRCNN], ids=lambda kind: kind.__name__)
def test_a_recipe_names_it(kind):
    chosen = {FastRCNN: {"detector": "fast_rcnn"}, MaskRCNN: {"masks": True, "mask_head_channels": (8,)}}.get(kind, {})
    settings = Settings(**SMALL, **chosen, box_regression="giou")
    model = build_model(settings, ["a", "b"])
    assert isinstance(model, kind)
    assert [head.units for head in model.parts["cascade"].heads] == [(16,)] * 2
    assert [one.num_classes for one in model.parts["cascade"].predictors] == [2, 2]


def test_r_cnn_has_none():
    settings = Settings(train={"data": "x"}, detector="rcnn", cascade=True)
    assert any("cascade = True: R-CNN" in problem for problem in check(settings, detector_of(settings)))


def test_the_steps_of_the_alternating_training_share_its_heads():
    model = tiny_detector(cascade=layers.Cascade(), box_predictor=None)
    shared = _fast(model)
    ours, theirs = ({w.path: w for w in one.weights if "_1/" in w.path or "_2/" in w.path} for one in (model, shared))
    heads = [path for path in ours if path.startswith("box_")]
    assert len(heads) == 12 and all(ours[path] is theirs[path] for path in heads)
    assert np.isfinite([weight.numpy().sum() for weight in shared.weights]).all()
