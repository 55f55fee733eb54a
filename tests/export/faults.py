"""Exports that are wrong in one thing: the export's own graph, run without being written, with one fault in it."""

import contextlib
import functools
import inspect

import numpy as np
import tensorflow as tf

from keras_rcnn.export import graph, masks_by
from tests.export import torchvision_six


def exported(model, fault=None, masks="crops"):
    """What `parity.check` takes as an export, with a fault, a key of `FAULTS` or `PASTED`; None: without."""
    context, after = {**FAULTS, **PASTED}.get(fault, (_none, None))

    def run(image, _):
        with context(model):
            found = graph.detect(lambda x: model(x, training=False), model.preprocessor, tf.constant(image[None]))
            if masks == "pasted":
                sizes = tf.constant([image.shape[:2]], tf.int32)
                found["masks"] = graph.paste(found["masks"], found["boxes"], found["labels"], sizes)
        found = {key: value[0].numpy() for key, value in found.items()}
        return after(found) if after else found

    return run


# === Faults of the graph: context managers ===


def _none(model):
    return contextlib.nullcontext()


@contextlib.contextmanager
def changed(thing, **values):
    """In the block a thing has other attributes."""
    own = {key: getattr(thing, key) for key in values}
    try:
        for key, value in values.items():
            setattr(thing, key, value)
        yield
    finally:
        for key, value in own.items():
            setattr(thing, key, value)


def source(name, old, new, module=graph):
    """A fault: in the source of a function of `keras_rcnn.export` one text is another."""
    text = inspect.getsource(getattr(module, name))
    if text.count(old) != 1:
        raise ValueError(f"{old!r} is not once in {module.__name__}.{name}: the fault has to be written anew.")
    space = dict(vars(module))

    def context(_):
        exec(compile(text.replace(old, new), f"{module.__name__}.{name}, changed", "exec"), space)  # noqa: S102
        return changed(module, **{name: space[name]})

    return context


def _mean(model):
    red, green, blue = model.preprocessor.mean
    return changed(model, preprocessor=model.preprocessor.replace(mean=(red + 1 / 255, green, blue)))


def _part(key, **values):
    return lambda model: changed(model.parts[key], **{name: value(model.parts[key]) for name, value in values.items()})


def _aligned(key):
    return _part(key, aligned=lambda pool: not pool.aligned)


def _swapped_classes(model):
    """The logits of the two classes that are found most often; of one class those of it and the background."""
    decoder, own = model.parts["decoder"], model.parts["decoder"].scores
    one, other = _common_labels(model) if model.num_classes > 1 else (0, 1)
    order = np.arange(model.num_classes + 1)
    order[[one, other]] = other, one
    return changed(decoder, scores=lambda logits: own(tf.gather(logits, order, axis=-1)))


@functools.cache
def _common_labels(model):
    labels = np.concatenate([model.detect(one, score=0.0, masks=False)["labels"] for one in torchvision_six.photos()])
    return np.argsort(-np.bincount(labels, minlength=2), kind="stable")[:2]


@contextlib.contextmanager
def _epsilon(model):
    """The normalisations of the backbone divide by the root of the variance plus 1e-4, and not 1e-5 or so."""
    with contextlib.ExitStack() as stack:
        for layer in model.parts["backbone"]._flatten_layers():
            if hasattr(layer, "moving_variance"):
                stack.enter_context(changed(layer, epsilon=layer.epsilon + 1e-4))
        yield


@contextlib.contextmanager
def _float16(model):
    """The weights have 11 bits."""
    values = [np.array(one) for one in model.weights]
    try:
        for weight, value in zip(model.weights, values):
            if value.dtype == np.float32:
                weight.assign(value.astype(np.float16).astype(np.float32))
        yield
    finally:
        for weight, value in zip(model.weights, values):
            weight.assign(value)


# === Faults of what comes out: functions of the answer ===


def _pixel(found):
    found["boxes"] = found["boxes"] + np.float32([0, 0, 1, 1])
    return found


def _whole(found):
    return {**found, "boxes": np.rint(found["boxes"])}


def _logits(found):
    values = np.clip(found["masks"], 1e-6, 1 - 1e-6)
    return {**found, "masks": np.log(values / (1 - values))}


# name -> (fault of the graph, fault of the answer)
FAULTS = {
    "one mean off by 1/255": (_mean, None),
    "RoIAlign aligned the other way": (_aligned("box_pool"), None),
    "two classes swapped": (_swapped_classes, None),
    "boxes a pixel wider": (_none, _pixel),
    "no sigmoid of masks": (_none, _logits),
    "RoIAlign of masks aligned the other way": (_aligned("mask_pool"), None),
    "boxes in whole pixels": (_none, _whole),
    "resize without half-pixel centres": (source("_resize_axis", "+ 0.5) - 0.5", ")"), None),
    "resize without the first half": (source("_resize_axis", "+ 0.5) - 0.5", ") - 0.5"), None),
    "pixels by 256": (source("normalise", "/ 255.0", "/ 256.0"), None),
    "NMS of detections from 0.6": (_part("decoder", iou_threshold=lambda part: part.iou_threshold + 0.1), None),
    "NMS of proposals from 0.65": (_part("proposals", iou_threshold=lambda part: part.iou_threshold - 0.05), None),
    "half as many proposals": (_part("proposals", post_nms=lambda part: [n // 2 for n in part.post_nms]), None),
    "another epsilon": (_epsilon, None),
    "weights in float16": (_float16, None),
}
# of pasted masks
PASTED = {"paste without the first half": (source("_resized", "+ 0.5) * scale", ") * scale", masks_by), None)}
