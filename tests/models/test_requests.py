"""Requests that a detector refuses, and sizes that it keeps to, in `detect`, `fit` and evaluation."""

import keras
import numpy as np
import pytest

from keras_rcnn.data import DataError, Preprocessor, ProposalSet, as_tf_dataset
from keras_rcnn.evaluation import EvaluateCallback, compare, evaluate
from keras_rcnn.training import Pictures
from tests.models.test_fast_rcnn import around, fast_rcnn, rcnn
from tests.models.test_mask_rcnn import tiny_mask_rcnn, with_masks
from tests.models.tiny import shapes, tiny_detector

BUILD = {"faster_rcnn": tiny_detector, "mask_rcnn": tiny_mask_rcnn, "fast_rcnn": fast_rcnn, "rcnn": rcnn}
FINDERS = ("faster_rcnn", "mask_rcnn")
OWN = "RCNN finds its proposals itself: leave proposals out"


@pytest.fixture(scope="module")
def models():
    """The four, untrained, compiled."""
    keras.utils.set_random_seed(0)
    made = {kind: build() for kind, build in BUILD.items()}
    for model in made.values():
        model.compile("sgd")
    return made


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "score is a number from 0 to 1, not nan"),
        ({"score": "0.5"}, "score is a number"),
        ({"batch_size": 0}, "batch_size is a whole number of at least 1, not 0"),
        ({"batch_size": -1}, "batch_size is a whole number"),
        ({"masks": "foo"}, "masks is one of .*'crops', not 'foo'"),
        ({"size": 0}, "size is a whole number of at least 1"),
        ({"proposals": [np.ones((4, 5))] * 2}, f"{OWN}|shape .4, 5."),
        ({"proposals": [[[1, 1, 9, float("nan")]]] * 2}, f"{OWN}|proposals of image 1 of 2.*nan"),
    ],
)
def test_detect_says_what_is_wanted(models, kind, change, message):
    with pytest.raises(ValueError, match=message):
        models[kind].detect(["no such file", "nor this"], **change)  # before a photo is read


@pytest.mark.parametrize("kind", FINDERS)
def test_proposals_for_a_detector_that_finds_its_own(models, kind, tmp_path):
    model, data = models[kind], with_masks(shapes(4))
    given = around(data)
    with pytest.raises(ValueError, match=OWN):
        model.detect(data[0].image, proposals=given[data[0]])
    with pytest.raises(ValueError, match=OWN):
        evaluate(model, data, proposals=given, progress=False)
    with pytest.raises(ValueError, match="find their proposals themselves"):
        compare({"a": model}, data, proposals=given, progress=False)
    batches = data.batches(model.preprocessor, masks=model.has_masks, proposals=given)
    plain = data.batches(model.preprocessor, masks=model.has_masks)
    with pytest.raises(ValueError, match=OWN):
        model.fit(batches, verbose=0)
    with pytest.raises(ValueError, match=OWN):
        model.fit(plain, validation_data=batches, verbose=0)
    for callback in (EvaluateCallback(data, proposals=given), Pictures(tmp_path, data, proposals=given)):
        seen = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: pytest.fail("it has begun"))
        with pytest.raises(ValueError, match=OWN):
            model.fit(plain, callbacks=[callback, seen], verbose=0)
    x, y = batches[0]
    for call in (model, model.predict_on_batch, lambda x: model.train_on_batch(x, y), lambda x: model.evaluate(x, y)):
        with pytest.raises(ValueError, match=OWN):
            call(x)
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match=OWN):
            model.fit(as_tf_dataset(batches), verbose=0)


@pytest.mark.parametrize("kind", ["fast_rcnn", "rcnn"])
def test_batches_without_the_proposals_that_are_wanted(models, kind):
    model, data = models[kind], shapes(4)
    batches = data.batches(model.preprocessor)
    with pytest.raises(ValueError, match=r"told where to look.*proposals=keras_rcnn.data.compute_proposals\(dataset\)"):
        model.fit(batches, verbose=0)
    with pytest.raises(ValueError, match="proposals"):
        model.predict_on_batch(batches[0][0])
    # of a kind that is none
    for call in (
        lambda given: data.batches(model.preprocessor, proposals=given),
        lambda given: evaluate(model, data, proposals=given, progress=False),
    ):
        with pytest.raises(DataError, match="are a ProposalSet, such as compute_proposals .* not a dict"):
            call(dict(around(data)))
    with pytest.raises(DataError, match="4 of 4 images have no proposals"):
        evaluate(model, data, proposals=ProposalSet({}), progress=False)


def test_batches_without_the_masks_that_are_learned(models):
    model = models["mask_rcnn"]
    with pytest.raises(ValueError, match=r"MaskRCNN learns masks: dataset.batches\(..., masks=True\)"):
        model.fit(shapes(4).batches(model.preprocessor), verbose=0)


def test_settings_of_an_evaluation_are_refused_before_it(models):
    data = shapes(4)
    for change, message in (
        ({"max_detections": 5}, "max_detections must be a whole number over 10"),
        ({"batch_size": 1.5}, "batch_size is a whole number"),
        ({"metric": "mAP"}, "metric must be one of"),
    ):
        for function in (evaluate, lambda _, *arguments, **change: EvaluateCallback(*arguments, **change)):
            with pytest.raises(ValueError, match=message):
                function(None, data, **change)


def test_size_is_kept_to_in_a_frame_of_fixed_size():
    """The same photo, as large, in a frame of one shape or in one of its own: the same detections."""
    image = shapes(4, size=256)[3].image[:200]
    weights = tiny_detector().get_weights()
    answers = []
    for fixed in ((128, 160), None):
        model = tiny_detector(preprocessor=Preprocessor(128, 160, fixed_size=fixed))
        model.set_weights(weights)
        seen = []
        model.predict_on_batch = lambda x: seen.append(x) or type(model).predict_on_batch(model, x)  # noqa: B023
        answers.append(model.detect(image, score=0.0, size=256))
        np.testing.assert_array_equal(seen[0]["image_sizes"], [[250, 320]])  # the longer side is at its most
        assert seen[0]["images"].shape == (1, 256, 320, 3)
    np.testing.assert_allclose(answers[0]["boxes"], answers[1]["boxes"], atol=1e-3)
    np.testing.assert_allclose(answers[0]["scores"], answers[1]["scores"], atol=1e-5)
    assert len(answers[0]["scores"])
