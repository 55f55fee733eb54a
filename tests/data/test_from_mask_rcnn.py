"""tools/mask_rcnn_to_coco.py, which users run in the environment of their old Mask_RCNN."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data import load_coco
from keras_rcnn.data.masks import full_mask

SCRIPT = Path(__file__).parents[2] / "tools/mask_rcnn_to_coco.py"
HEIGHT, WIDTH = 30, 40


def write_coco(*args, **options):
    spec = importlib.util.spec_from_file_location("mask_rcnn_to_coco", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_coco(*args, **options)


class Shapes:
    """What a subclass of `mrcnn.utils.Dataset` offers; its second photo is in a file, the others are drawn."""

    def __init__(self, folder):
        self.class_info = [{"source": "", "id": 0, "name": "BG"}]
        self.class_info += [{"source": "shapes", "id": 7 * i, "name": name} for i, name in enumerate(["dot", "bar"], 1)]
        Image.fromarray(self.load_image(1)).save(folder / "photo.png")
        self.image_info = [{"id": 5, "source": "shapes", "path": path} for path in (None, folder / "photo.png", None)]
        self.image_ids = np.array([])

    def prepare(self):
        self.image_ids = np.arange(len(self.image_info))

    def load_image(self, image_id):
        return np.random.default_rng(image_id).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def load_mask(self, image_id):
        if image_id == 2:  # as utils.Dataset.load_mask answers for a photo without objects
            return np.empty([0, 0, 0]), np.empty([0], np.int32)
        masks = np.zeros((HEIGHT, WIDTH, 4), bool)
        masks[3:9, 4:30, 0] = True
        masks[5, 4:10, 0] = False
        masks[0:2, 0:3, 1] = True  # begins with the photo
        masks[20:, 30:, 2] = True  # and ends with it; the fourth is empty
        return masks, np.array([1, 2, -2 if image_id else 2, 1], np.int32)


def test_masks_and_classes_are_the_same(tmp_path):
    shapes = Shapes(tmp_path)
    shapes.prepare()
    assert write_coco(shapes, str(tmp_path / "train.json")) == (3, 6)
    dataset = load_coco(tmp_path / "train.json", tmp_path)
    assert dataset.class_names == ["dot", "bar"]
    assert [Path(record.name).name for record in dataset] == ["000000.png", "photo.png", "000002.png"]
    for i, record in enumerate(dataset):
        np.testing.assert_array_equal(record.read(), shapes.load_image(i))
    masks, _ = shapes.load_mask(0)
    np.testing.assert_array_equal(
        [full_mask(mask, HEIGHT, WIDTH) for mask in dataset[0].segmentations], masks.T[:3].transpose(0, 2, 1)
    )
    np.testing.assert_array_equal(dataset[0].boxes, [[4, 3, 30, 9], [0, 0, 3, 2], [30, 20, 40, 30]])
    assert dataset[0].labels.tolist() == [0, 1, 1] and dataset[1].crowd.tolist() == [False, False, True]
    assert not len(dataset[2].boxes)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    shapes = Shapes(tmp_path)
    with pytest.raises(ValueError, match=r"dataset\.prepare\(\)"):
        write_coco(shapes, str(tmp_path / "train.json"))
    shapes.prepare()
    shapes.load_mask = lambda image_id: (np.ones((HEIGHT, WIDTH - 1, 1)), [1])
    with pytest.raises(ValueError, match="its masks are 39 x 30 px, but the photo is 40 x 30"):
        write_coco(shapes, str(tmp_path / "train.json"))
    assert not list(tmp_path.glob("train.json*"))


def test_old_pythons_read_the_script():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 5))
