"""COCO's keypoint metric against pycocotools itself, reading the same from json files."""

import contextlib
import io
import json

import numpy as np
import pytest

from keras_rcnn.data import Dataset, Record
from keras_rcnn.evaluation import keypoint_metrics, keypoint_results
from keras_rcnn.evaluation.scoring import metrics_of
from keras_rcnn.skeletons import COCO_SKELETON, Skeleton

NAMES = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]


def people(seed=0, images=12, skeleton=COCO_SKELETON):
    """Random people, some crowded, some without a visible keypoint, and detections near them and elsewhere."""
    rng, records, found, count = np.random.default_rng(seed), [], [], len(skeleton)
    for i in range(images):
        n = int(rng.integers(0, 6))
        corner = rng.uniform(0, 300, (n, 2))
        boxes = np.concatenate([corner, corner + np.exp(rng.uniform(2.5, 5.5, (n, 2)))], axis=1)
        points = np.concatenate(
            [corner[:, None] + rng.random((n, count, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2]),
             rng.integers(0, 3, (n, count, 1))], axis=2
        )  # fmt: skip
        points[: n // 4, :, 2] = 0
        points = np.where(points[..., 2:] > 0, points, 0)
        records.append(
            Record(
                image=f"{i}.jpg",
                image_id=i + 1,
                height=640,
                width=640,
                boxes=boxes,
                labels=rng.integers(0, 2, n),
                crowd=rng.random(n) < 0.15,
                areas=0.6 * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
                keypoints=points,
            )
        )
        most = int(rng.integers(0, 30))
        chosen = rng.integers(0, n, most) if n else np.zeros(0, int)
        noise = rng.standard_normal((len(chosen), count, 2)) * rng.choice([1, 4, 20], (len(chosen), 1, 1))
        near = np.concatenate([points[chosen][..., :2] + noise, rng.random((len(chosen), count, 1))], axis=2)
        found.append(
            {
                "boxes": boxes[chosen].astype(np.float32),
                "scores": rng.random(len(chosen)).astype(np.float32),
                "labels": rng.integers(0, 2, len(chosen)).astype(np.int32),
                "names": [""] * len(chosen),
                "keypoints": near.astype(np.float32),
            }
        )
    return Dataset(records, ["person", "statue"], [1, 5], skeleton=skeleton), found


def pycocotools(data, found, folder, sigmas=None):
    """Its own numbers, from files as it reads them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = []
    for record in data:
        for i, box in enumerate(record.boxes.astype(float)):
            points = record.keypoints[i]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": data.category_ids[record.labels[i]],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": float(record.areas[i]),
                    "iscrowd": int(record.crowd[i]),
                    "keypoints": points.astype(float).ravel().tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                }
            )
    content = {
        "images": [{"id": record.image_id, "height": 640, "width": 640} for record in data],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in zip(data.category_ids, data.class_names)],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "found.json").write_text(json.dumps(keypoint_results(data, found)))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "found.json")), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_pycocotools(seed, tmp_path):
    data, found = people(seed)
    ours = keypoint_metrics(data, found)
    theirs = pycocotools(data, found, tmp_path)
    assert 0 < ours["AP"] < 1
    np.testing.assert_allclose([np.nan_to_num(ours[name], nan=-1) for name in NAMES], theirs, atol=1e-12)


def test_other_skeletons_have_sigmas(tmp_path):
    skeleton = Skeleton(("a", "b", "c"))
    data, found = people(skeleton=skeleton)
    theirs = pycocotools(data, found, tmp_path, [0.067] * 3)
    np.testing.assert_allclose(keypoint_metrics(data, found)["AP"], theirs[0], atol=1e-12)
    data.skeleton = Skeleton(("a", "b", "c"), sigmas=(0.01, 0.02, 0.03))
    theirs = pycocotools(data, found, tmp_path, [0.01, 0.02, 0.03])
    np.testing.assert_allclose(keypoint_metrics(data, found)["AP"], theirs[0], atol=1e-12)


def test_evaluate_has_them_beside_the_boxes():
    data, found = people()
    result = metrics_of(data, found)
    assert set(NAMES) == set(result["keypoints"])
    assert {"keypoints_AP", "keypoints_AP50"} <= set(result["per_class"]["statue"])
    del found[0]["keypoints"]
    assert "keypoints" not in metrics_of(data, found)
    with pytest.raises(ValueError, match="without keypoints"):
        keypoint_metrics(data, found)
