"""The 4-step training on generated pictures."""

import keras
import numpy as np
import pytest

from keras_rcnn.evaluation import evaluate
from keras_rcnn.models.rpn import RPN
from keras_rcnn.training import alternate
from tests.models.tiny import shapes, tiny_detector


def weights_of(model, *parts):
    return [weight for part in parts for weight in model.parts[part].get_weights()]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
def test_four_steps_share_the_layers_in_the_end():
    keras.utils.set_random_seed(0)
    data = shapes(8)
    model = tiny_detector()
    start = weights_of(model, "backbone", "neck")
    seen = []

    def fit(step, detector, proposals):
        before = {part: weights_of(model, part) for part in ("backbone", "neck", "rpn_head", "box_head")}
        assert isinstance(detector, RPN) == (proposals is None) == (step % 2 == 0)
        if step == 1:
            assert same(before["backbone"] + before["neck"], start), "step 2 starts from the weights before step 1"
            recall = [len(proposals[record]) for record in data]
            assert min(recall) > 0
        detector.compile(keras.optimizers.AdamW(2e-3, clipnorm=5.0), jit_compile=False)
        batches = data.batches(detector.preprocessor, batch_size=4, shuffle=True, cache=True, proposals=proposals)
        losses = detector.fit(batches, epochs=(30, 40, 25, 20)[step], verbose=0).history["loss"]
        changed = {part for part, values in before.items() if not same(values, weights_of(model, part))}
        seen.append(changed)
        return losses[-1]

    losses = alternate(model, data, fit, progress=False)
    assert np.isfinite(losses).all()
    assert seen == [{"backbone", "neck", "rpn_head"}, {"backbone", "neck", "box_head"}, {"rpn_head"}, {"box_head"}]
    assert all(weight.trainable for weight in model.parts["backbone"].weights)
    assert evaluate(model, data, progress=False)["bbox"]["AP50"] > 0.8
