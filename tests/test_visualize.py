"""What must be on the picture, pixel by pixel where it can be told."""

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.visualize import COLOURS, class_colour, draw

GREY = 90


def blank(height=240, width=320):
    return np.full((height, width, 3), GREY, "uint8")


def one(box, **fields):
    return {"boxes": np.array([box], "float32"), "labels": np.array([0])} | fields


def changed(picture):
    return (picture != GREY).any(-1)


def test_a_box_lies_on_its_pixels_and_nothing_else_changes():
    """Edges 40..100 x 30..90: the line covers the first and the last pixel inside, 40 and 99, 30 and 89."""
    image = blank()
    picture = draw(image, one([40, 30, 100, 90]))
    assert picture.dtype == "uint8" and picture.shape == image.shape and (image == GREY).all()
    expected = np.zeros((240, 320), bool)
    expected[30:90, 40:100] = True
    expected[31:89, 41:99] = False
    np.testing.assert_array_equal(changed(picture), expected)
    assert tuple(picture[30, 40]) == COLOURS[0]


def test_lines_scale_with_the_image_but_do_not_fill_small_boxes():
    large = draw(blank(1200, 1800), one([300, 300, 900, 900]))
    assert changed(large)[600, 295:320].sum() == 5
    small = draw(blank(1200, 1800), one([300, 300, 312, 312]))
    assert changed(small)[306, 295:320].sum() == 2


def test_labels_stay_inside_the_image():
    corners = [[0, 0, 40, 30], [280, 0, 320, 30], [0, 210, 40, 240], [280, 210, 320, 240], [-20, -20, 400, 300]]
    found = {
        "boxes": np.array(corners),
        "labels": np.arange(5),
        "scores": np.linspace(0.9, 0.5, 5),
        "names": ["a rather long name"] * 5,
    }
    picture = draw(blank(), found)
    for label in range(5):  # each label's filled background is on the picture, as wide as its text
        rows, columns = np.nonzero((picture == COLOURS[label]).all(-1))
        assert np.ptp(columns) > 90 and len(rows) > 300


def test_detections_below_the_score_and_padding_are_left_out():
    found = {
        "boxes": np.array([[10, 10, 50, 50], [100, 100, 150, 150], [200, 100, 250, 150]]),
        "labels": np.array([0, 1, -1]),
        "scores": np.array([0.9, 0.3, 0.9]),
    }
    picture = changed(draw(blank(), found, score=0.5))
    assert picture[:, :90].any() and not picture[:, 90:].any()
    assert not changed(draw(blank(), found, score=0.95)).any()
    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0), "scores": np.zeros(0), "names": [], "masks": []}
    assert not changed(draw(blank(), nothing)).any()


def test_masks_are_translucent_with_a_contour():
    mask = np.zeros((1, 240, 320), bool)
    mask[0, 50:150, 60:200] = True
    found = one([60, 50, 200, 150], masks=mask)
    picture = draw(blank(), found)
    np.testing.assert_array_equal(picture[100, 130], (0.6 * GREY + 0.4 * np.array(COLOURS[0])).astype(int))
    assert tuple(picture[100, 60]) == tuple(picture[50, 130]) == COLOURS[0]
    assert (picture[0:40] == GREY).all()


def test_masks_as_rles_or_probabilities_look_the_same():
    from pycocotools import mask as rle

    masks = np.zeros((2, 240, 320), bool)
    masks[0, 50:150, 60:200] = masks[1, 160:200, 10:90] = True
    found = {"boxes": np.array([[60, 50, 200, 150], [10, 160, 90, 200]]), "labels": np.array([0, 1])}
    expected = draw(blank(), found | {"masks": masks})
    encoded = [rle.encode(np.asfortranarray(mask.astype("uint8"))) for mask in masks]
    plain = [{"size": [240, 320], "counts": [60 * 240 + 50, *([100, 140] * 140)]}, encoded[1]]
    plain[0]["counts"][-1] = 240 * 320 - sum(plain[0]["counts"][:-1])
    for same in (encoded, plain, masks * 0.9):
        np.testing.assert_array_equal(draw(blank(), found | {"masks": same}), expected)
    with pytest.raises(ValueError, match=r"shape \(28, 28\), but the image is \(240, 320\)"):
        draw(blank(), found | {"masks": np.zeros((2, 28, 28))})


def crowd(labels):
    x, y = np.meshgrid(np.arange(16) * 20, np.arange(10) * 24)
    boxes = np.stack([x + 2, y + 2, x + 14, y + 16], -1).reshape(-1, 4)
    n = len(boxes)
    return {"boxes": boxes, "labels": np.resize(labels, n), "scores": np.full(n, 0.9), "names": ["cell"] * n}


def test_a_crowd_of_small_objects_has_thin_lines_and_no_labels():
    for labels in ([0], [0, 1, 2]):
        found = crowd(labels)
        expected = np.zeros((240, 320), bool)
        for x1, y1, x2, y2 in found["boxes"]:
            expected[y1:y2, x1:x2] = True
            expected[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = False
        np.testing.assert_array_equal(changed(draw(blank(), found)), expected)


def test_touching_masks_of_one_class_can_be_told_apart():
    found = crowd([0])
    masks = np.zeros((len(found["boxes"]), 240, 320), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, found["boxes"], strict=True):
        mask[y1:y2, x1:x2] = True
    picture = draw(blank(), found | {"masks": masks})
    inside = {tuple(picture[y1 + 7, x1 + 6]) for x1, y1, *_ in found["boxes"]}
    assert len(inside) >= 7


def test_a_class_has_one_colour_and_no_other_class_has_it():
    colours = np.array([class_colour(label) for label in range(80)], float)
    assert class_colour(3) == class_colour(np.int32(3)) == COLOURS[3]
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(80)
    assert distance.min() > 8 and distance[:12, :12].min() > 60


@pytest.mark.parametrize("name", ["found.png", "found.jpg", "deep/er/found.webp"])
def test_saved_in_the_format_of_its_name_and_nothing_is_left_beside(tmp_path, name):
    picture = draw(blank(), one([40, 30, 100, 90], names=["cat"]), tmp_path / name)
    path = tmp_path / name
    assert [entry.name for entry in path.parent.iterdir() if entry.is_file()] == [path.name]
    with Image.open(path) as saved:
        assert saved.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[name.split(".")[1]]
        assert np.abs(np.asarray(saved.convert("RGB")).astype(int) - picture).mean() < 3


def test_an_unknown_format_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="extension"):
        draw(blank(), one([40, 30, 100, 90]), tmp_path / "found.xyz")
    assert list(tmp_path.iterdir()) == []


def test_paths_pil_images_and_grey_arrays(tmp_path):
    found = one([40, 30, 100, 90], scores=np.array([0.5]))
    expected = draw(blank(), found)
    Image.fromarray(blank()).save(tmp_path / "image.png")
    for image in (tmp_path / "image.png", str(tmp_path / "image.png"), Image.fromarray(blank()), blank()[..., 0]):
        np.testing.assert_array_equal(draw(image, found), expected)


def test_class_names_for_ground_truth():
    box = one([40, 60, 200, 190])
    assert changed(draw(blank(), box, class_names=["cat"])).sum() > changed(draw(blank(), box)).sum() + 200


@pytest.mark.parametrize(
    ("found", "arguments", "message"),
    [
        ([one([1, 2, 30, 40])], {}, "the detections of one image, a dict .* not a list"),
        ({"labels": [0]}, {}, "a dict with 'boxes'"),
        (one([1, 2, 30, np.nan]), {}, "The detections' boxes.*nan"),
        ({"boxes": np.ones((4, 5))}, {}, r"not an array of shape \(4, 5\)"),
        (one([1, 2, 30, 40], names=["a", "b"]), {}, "1 boxes, but 2 names"),
        (one([1, 2, 30, 40]), {"score": np.nan}, "score is a number"),
        (one([1, 2, 30, 40]), {"score": "0.5"}, "score is a number"),
        ({"boxes": [[1, 2, 30, 40]]}, {"score": 0.5}, "no 'scores'"),
        ({"boxes": [[1, 2, 30, 40]], "labels": [3]}, {"class_names": ["cat"]}, "1 class_names, but there is a label 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(found, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(blank(), found, **arguments)


def test_names_with_control_characters_are_drawn_escaped():
    expected = draw(blank(), one([40, 30, 100, 90], names=[r"cat\x1b[2J\nfig"]))
    np.testing.assert_array_equal(draw(blank(), one([40, 30, 100, 90], names=["cat\x1b[2J\nfig"])), expected)


def test_colours_instead_of_the_classes():
    boxes = np.array([[10, 10, 40, 40], [60, 60, 90, 90]])
    found = {"boxes": boxes, "labels": [0, 0], "scores": [0.1, 0.9]}
    picture = draw(
        np.zeros((100, 100, 3), np.uint8), {"boxes": boxes, "labels": [0, 0]}, colours=[(1, 2, 3), (4, 5, 6)]
    )
    assert tuple(picture[39, 20]) == (1, 2, 3) and tuple(picture[89, 70]) == (4, 5, 6)
    picture = draw(np.zeros((100, 100, 3), np.uint8), found, score=0.5, colours=[(1, 2, 3), (4, 5, 6)])
    assert tuple(picture[89, 70]) == (4, 5, 6) and not picture[:50, :50].any()
    masks = np.zeros((2, 100, 100), bool)
    masks[:, 20:30, 20:30] = True
    picture = draw(np.zeros((100, 100, 3), np.uint8), {"boxes": boxes, "masks": masks}, colours=[(0, 200, 0)] * 2)
    assert picture[..., 1].max() == 200 and not picture[..., (0, 2)].any()  # no shades of it
    with pytest.raises(ValueError, match="2 boxes, but there are 1 colours"):
        draw(np.zeros((100, 100, 3), np.uint8), found, colours=[(1, 2, 3)])
