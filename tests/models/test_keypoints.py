"""A keypoint branch on Faster and Mask R-CNN, on drawn figures."""

import json

import keras
import numpy as np
import pytest

from keras_rcnn import layers
from keras_rcnn.evaluation import AugmentedDetector, evaluate
from keras_rcnn.models import MaskRCNN
from keras_rcnn.presets import from_preset, save_preset
from keras_rcnn.visualize import draw
from tests.models.keypoint_figures import SKELETON, figures, keypoint_branch, keypoint_detector
from tests.models.tiny import TinyBackbone, batch, shapes, tiny_detector


def test_config_survives_json():
    model = keypoint_detector()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    rebuilt = keras.saving.deserialize_keras_object(config)
    assert [w.path for w in rebuilt.weights] == [w.path for w in model.weights]
    assert rebuilt.skeleton == model.skeleton
    assert model.skeleton.names == SKELETON.names
    assert "keypoint_branch/keypoint_head/logits/kernel" in [w.path for w in model.weights]


def test_losses_and_gradients():
    keras.utils.set_random_seed(0)
    model = keypoint_detector()
    x, y = batch()
    y["labels"][0, :2] = 0
    y["keypoints"] = np.zeros((2, 5, 5, 3), np.float32)
    y["keypoints"][0, 0] = [[20 + 5 * i, 20 + 8 * i, 2] for i in range(5)]
    losses = {k: np.asarray(v) for k, v in model.training_graph({**x, **y}, training=True).items()}
    # as if each of 28 x 28 cells were as likely
    assert losses["loss_keypoint"].mean() == pytest.approx(np.log(28 * 28), rel=0.3)
    y["keypoints"][..., 2] = 0
    none = {k: np.asarray(v) for k, v in model.training_graph({**x, **y}, training=True).items()}
    assert not none["loss_keypoint"].any()
    assert all(np.isfinite(value).all() for value in none.values())


def test_detections_and_a_preset(tmp_path):
    keras.utils.set_random_seed(0)
    model, image = keypoint_detector(), figures(2)[1].image
    found = model.detect(image, score=0.0)
    assert found["keypoints"].shape == (len(found["boxes"]), 5, 3)
    low, high = found["boxes"][:, None, :2], found["boxes"][:, None, 2:]
    assert ((found["keypoints"][..., :2] >= low) & (found["keypoints"][..., :2] <= high)).all()
    again = from_preset(save_preset(model, tmp_path / "figures", dtype="float32"))
    assert again.skeleton == model.skeleton
    np.testing.assert_allclose(again.detect(image, score=0.0)["keypoints"], found["keypoints"], atol=1e-3)
    # other classes, the same keypoints
    other = from_preset(tmp_path / "figures", class_names=["dancer", "tree"])
    kernels = [np.asarray(one.parts["keypoint_branch"].head.logits.kernel) for one in (model, other)]
    np.testing.assert_array_equal(*kernels)


def test_what_is_not_there_is_told():
    model = keypoint_detector()
    model.compile("sgd")
    data = figures(2)
    with pytest.raises(ValueError, match="keypoints=True"):
        model.fit(data.batches(model.preprocessor))
    with pytest.raises(ValueError, match=r"num_keypoints=5, and 2 names"):
        layers.KeypointHead(5, names=["a", "b"])
    other = tiny_detector(1, keypoint_branch=layers.KeypointBranch(layers.KeypointHead(3, convs=(8,))))
    other.compile("sgd")
    with pytest.raises(ValueError, match=r"5 keypoints .*KeypointHead\(5"):
        other.fit(data.batches(other.preprocessor, keypoints=True))
    assert tiny_detector().skeleton is None
    assert shapes(1).skeleton is None


def test_mask_rcnn_with_keypoints():
    keras.utils.set_random_seed(0)
    parts = dict(keypoint_detector().parts)
    parts = {key: value for key, value in parts.items() if key not in ("backbone", "num_classes")}
    masks = {
        "mask_pool": layers.RoIAlign(7, (4, 8, 16, 32), canonical_size=56, name="mask_pool"),
        "mask_targets": layers.MaskTargets(1, parts["box_targets"].most_positive, size=14),
        "mask_head": layers.MaskHead(1, convs=(8,), channels=8),
    }
    model = MaskRCNN(TinyBackbone(), 1, **{**parts, **masks, "keypoint_branch": keypoint_branch()})
    found = model.detect(figures(1)[0].image, score=0.0)
    assert {"masks", "keypoints"} <= set(found)
    assert {"loss_mask", "loss_keypoint"} <= set(model.training_graph.output)


def test_pictures_have_skeletons():
    record = figures(1)[0]
    found = {"boxes": record.boxes, "labels": record.labels, "keypoints": record.keypoints}
    plain = draw(record.image, {key: value for key, value in found.items() if key != "keypoints"})
    dots, lines = draw(record.image, found), draw(record.image, found, skeleton=SKELETON)
    x, y = record.keypoints[0, 1, :2].astype(int)
    assert (plain[y, x] != dots[y, x]).any()
    middle = (record.keypoints[0, 1, :2] + record.keypoints[0, 3, :2]) / 2
    x, y = middle.astype(int)
    window = (slice(y - 3, y + 4), slice(x - 3, x + 4))
    assert (dots[window] == plain[window]).all() and (lines[window] != plain[window]).any()
    with pytest.raises(ValueError, match="5 keypoints, the skeleton 2"):
        draw(record.image, found, skeleton=SKELETON.of(2))


def test_mirrored_views_have_their_keypoints_back():
    """A detector that finds the red dot as left and the blue one as right, whatever it is shown."""
    record = figures(1)[0]

    class Finder:
        class_names, has_masks, wants_proposals, skeleton = ["figure"], False, False, SKELETON

        def detect(self, images, score=None, batch_size=None, **options):
            answers = []
            for image in images:
                mirrored = not (image == record.image).all()
                points, boxes = record.keypoints.copy(), record.boxes.copy()
                if mirrored:
                    points = points[:, list(SKELETON.mirrored)]
                    points[..., 0] = 128 - points[..., 0]
                    boxes[:, [0, 2]] = 128 - boxes[:, [2, 0]]
                scores = np.float32([0.9 if mirrored else 0.8])
                labels = np.zeros(1, np.int32)
                answers.append(
                    {"boxes": boxes, "scores": scores, "labels": labels, "names": ["figure"], "keypoints": points}
                )
            return answers

    found = AugmentedDetector(Finder()).detect(record.image)
    assert found["scores"][0] == np.float32(0.9)
    np.testing.assert_allclose(found["keypoints"], record.keypoints, atol=1e-4)


@pytest.mark.slow
def test_overfits_eight_images():
    keras.utils.set_random_seed(0)
    data, model = figures(8), keypoint_detector()
    model.compile(keras.optimizers.AdamW(2e-3, clipnorm=5.0))
    model.fit(
        data.batches(model.preprocessor, batch_size=4, shuffle=True, cache=True, keypoints=True), epochs=60, verbose=0
    )
    result = evaluate(model, data, progress=False)
    assert result["bbox"]["AP50"] > 0.9
    assert result["keypoints"]["AP"] > 0.8
