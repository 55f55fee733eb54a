"""Datasets and detections to score."""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_rcnn.data import Dataset, Record


def make_record(boxes, labels, image_id=1, size=(200, 300), **fields):
    return Record(np.zeros((*size, 3), "uint8"), image_id, *size, boxes, labels, **fields)


def make_found(boxes, scores, labels, **fields):
    return {
        "boxes": np.array(boxes, "float32").reshape(-1, 4),
        "scores": np.array(scores, "float32").reshape(-1),
        "labels": np.array(labels, "int32").reshape(-1),
    } | fields


def rectangle_masks(boxes, size=(200, 300)):
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, np.array(boxes).round().astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def random_case(seed, images=12, classes=4, objects=12, false=6, masks=False, size=(200, 300)):
    """Objects of every size class with crowds, and detections: jittered copies, duplicates, false ones, misses.

    Images 3 and 4 are without objects, 4 and 5 without detections; the last class does not occur. Scores have few
    values, so that there are ties. Coordinates are multiples of 1/4, which float32 holds exactly.
    """
    from pycocotools import mask as rle

    rng = np.random.default_rng(seed)
    height, width = size

    def boxes(n):
        sides = rng.choice([12, 24, 48, 90, 150], (n, 2)) * rng.uniform(0.7, 1.2, (n, 2))
        corner = rng.uniform(0, 1, (n, 2)) * (np.array([width, height]) - sides)
        return (np.concatenate([corner, corner + sides], 1) * 4).round() / 4

    records, detections = [], []
    for i in range(images):
        n = 0 if i in (3, 4) else int(rng.integers(1, objects))
        truth, labels = boxes(n), rng.integers(0, classes - 1, n)
        fields = {"crowd": rng.random(n) < 0.15, "difficult": rng.random(n) < 0.2}
        fields["areas"] = (truth[:, 2:] - truth[:, :2]).prod(1).astype("float32") * rng.choice([0.5, 1], n)
        if masks:
            fields["segmentations"] = []
            for k, (x1, y1, x2, y2) in enumerate(truth):
                corners = [[x1, y1, x2, y1, x2, y2, (x1 + x2) / 2, (y1 + y2) / 2, x1, y2]]
                if fields["crowd"][k]:
                    one = rle.encode(np.asfortranarray(rectangle_masks(truth[k : k + 1], size)[0].astype("uint8")))
                    corners = {"size": list(one["size"]), "counts": one["counts"]}
                fields["segmentations"].append(corners)
        records.append(make_record(truth, labels, image_id=100 - 3 * i, size=size, **fields))
        if i in (4, 5):
            detections.append(make_found([], [], []) | ({"masks": np.zeros((0, *size), bool)} if masks else {}))
            continue
        hits = np.flatnonzero(np.tile(rng.random(n) < 0.8, 2) & (np.arange(2 * n) < 1.5 * n)) % max(n, 1)
        moved = truth[hits] + (rng.normal(0, 2, (len(hits), 4)) * 4).round() / 4
        moved = np.clip(moved, 0, [width, height, width, height])
        extra = boxes(int(rng.integers(0, false)))
        found = np.concatenate([moved, extra])
        names = np.concatenate([labels[hits], rng.integers(0, classes - 1, len(extra))])
        names = np.where(rng.random(len(names)) < 0.1, 0, names)
        found = make_found(found, rng.integers(1, 20, len(found)) / 32, names)
        order = np.argsort(-found["scores"], kind="stable")
        found = {key: value[order] for key, value in found.items()}
        if masks:
            found["masks"] = rectangle_masks(found["boxes"], size)
        detections.append(found)
    names = [f"class {k}" for k in range(classes)]
    return Dataset(records, names, [7, 3, 90, 12, 5][:classes]), detections


@pytest.fixture
def make():
    """The makers above, in one handle."""
    return SimpleNamespace(
        data=Dataset, record=make_record, found=make_found, random=random_case, masks=rectangle_masks
    )
