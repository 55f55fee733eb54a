"""Damaged annotations and images, from fixed seeds: each is read right, or is an error of the package that names it."""

import copy
import io
import json
import time
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from keras_rcnn.data import DataError, ImageError, Preprocessor, load_coco, load_csv, load_voc, read_image
from keras_rcnn.data.images import decoded_size, image_size
from tests.data.user_files import BOXES, content, rle, voc
from tests.memory import at_most

SMALL = Preprocessor(min_size=32, max_size=64)
SECONDS, MEGABYTES = 60, 2048
DEEP = json.loads("[" * 60 + "]" * 60)
VALUES = [
    None, True, False, 0, 1, -1, 7, 0.5, 1e7, -1e7, 1e12, 1e300, -1e300, float("nan"), float("inf"), 2**31, 2**63,
    10**400, "", " ", "0", "1", "-1", "abc", "1e400", "nan", "1,5", "0x10", "\x00", "\ud800", "a\nb", "../../x",
    "é" * 300, "x" * 5000, "C:\\", "%", "://?d=", "file://[", [], [[]], [None], [1], [1, 2, 3, 4], ["1", "2", "3", "4"],
    [[1, 2], [3, 4]], [1e7] * 6, [[1e9, 0, 5, 5, 0, 5]], [[0, 0, 1e5, 0, 5, 5]], {}, {"id": 1}, {"counts": []},
    {"size": [120, 160], "counts": [[1], [2]]}, {"size": [1e9, 1e9], "counts": "0"},
    {"size": [120, 160], "counts": "P" * 40}, DEEP,
]  # fmt: skip


def places(value, path=()):
    """Every place in a tree of dicts and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from places(one, (*path, key))


def damaged_tree(tree, rng):
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 4))):
        options = list(places(tree))
        path = options[int(rng.integers(1, len(options)))]
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        action, key = int(rng.integers(6)), path[-1]
        if action == 0 and isinstance(parent, dict):
            del parent[key]
        elif action == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif action == 2:
            parent[key] = [parent[key]]
        elif action == 3 and not isinstance(parent[key], (dict, list)):
            parent[key] = str(parent[key])
        else:
            parent[key] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    return tree


def damaged_bytes(data, rng, alphabet=b'<>&;,"{}[]:\x00\xff\xfe\n-e9/\\%'):
    data = bytearray(data)
    action = int(rng.integers(6))
    place = int(rng.integers(len(data)))
    if action == 0:
        del data[place:]
    elif action == 1:
        del data[place : place + int(rng.integers(1, 60))]
    elif action == 2:
        data[place:place] = data[: int(rng.integers(1, 200))]
    elif action == 3:
        encoding = ["utf-16", "utf-16-le", "utf-32", "cp037"][int(rng.integers(4))]
        return bytes(data).decode("utf-8", "replace").encode(encoding, "replace")
    else:
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(len(data)))] = alphabet[int(rng.integers(len(alphabet)))]
    return bytes(data)


def damaged_words(text, rng, separators):
    """A text some of whose words are other values."""
    for _ in range(int(rng.integers(1, 4))):
        places = [i for i, letter in enumerate(text) if letter in separators]
        start = places[int(rng.integers(len(places) - 1))]
        end = next((i for i in places if i > start), len(text))
        text = text[: start + 1] + str(VALUES[int(rng.integers(len(VALUES)))]) + text[end:]
    return text.encode("utf-8", "surrogatepass")


def looked_at(load, path, on_bad):
    """Loads, and if that succeeds makes the first batch; every error must be of the package and name the file."""
    began = time.monotonic()
    try:
        dataset = load(on_bad)
    except (DataError, ImageError) as error:
        assert path.stem in str(error), f"{error} does not name {path}"
        dataset = None
    if dataset is not None:
        for record in dataset:
            assert np.isfinite(record.boxes).all() and np.isfinite(record.areas).all()
            assert (record.boxes >= 0).all() and (record.boxes[:, 2:] > record.boxes[:, :2]).all()
            assert ((record.labels >= 0) & (record.labels < len(dataset.class_names))).all()
        assert all(name.strip() and '"' not in name[1:-1] for name in dataset.class_names) or path.suffix != ".csv"
        for masks in {False, any(record.segmentations is not None for record in dataset)}:
            try:
                dataset.batches(SMALL, masks=masks)[0]
            except (DataError, ImageError) as error:
                assert any(str(name) in str(error) for name in (path, *(one.name for one in dataset))), error
    assert time.monotonic() - began < SECONDS


def seeds(count, quick):
    """Numbers of cases, the later ones slow; in lots, so that a failure names few."""
    lots = [range(start, min(start + 10, count)) for start in range(0, count, 10)]
    return [pytest.param(lot, marks=[pytest.mark.slow] if lot[0] >= quick else [], id=str(lot[0])) for lot in lots]


@pytest.fixture(autouse=True)
def bounded():
    """Memory that a test takes on top of what Python has."""
    with at_most(MEGABYTES), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of sizes and EXIF
        yield


@pytest.mark.parametrize("lot", seeds(500, 50))
def test_damaged_coco(folder, lot):
    tree = content()
    tree["annotations"][1]["segmentation"] = rle(BOXES["000"][1])
    tree["annotations"][2]["segmentation"] = rle(BOXES["001"][0], text=True)
    path = folder / "coco.json"
    for seed in lot:
        rng = np.random.default_rng([1, seed])
        if seed % 3:
            path.write_text(json.dumps(damaged_tree(tree, rng)))
        else:
            path.write_bytes(damaged_bytes(json.dumps(tree).encode(), rng))
        for on_bad in ("error", "skip"):
            looked_at(lambda on_bad: load_coco(path, folder / "photos", on_bad=on_bad), path, on_bad)


@pytest.mark.parametrize(
    "number", [pytest.param(i, marks=[pytest.mark.slow] if i % 6 else []) for i in range(len(VALUES))]
)
def test_every_field_of_coco_with_every_value(folder, number):
    tree, path = content(), folder / "coco.json"
    tree["annotations"][1]["segmentation"] = rle(BOXES["000"][1])
    tree["annotations"][2]["segmentation"] = rle(BOXES["001"][0], text=True)
    one_each = {("images", 0), ("annotations", 0), ("annotations", 1), ("categories", 0)}
    for place in places(tree):
        if len(place) > 2 and (place[:2] not in one_each or (len(place) > 5 and place[-1] > 1)):
            continue
        if not place:
            changed = copy.deepcopy(VALUES[number])
        else:
            changed = parent = copy.deepcopy(tree)
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = copy.deepcopy(VALUES[number])
        path.write_text(json.dumps(changed))
        looked_at(lambda on_bad: load_coco(path, folder / "photos", on_bad=on_bad), path, "skip")


@pytest.mark.parametrize("lot", seeds(500, 50))
def test_damaged_voc(folder, lot):
    voc(folder, lists={"all": b"000\n001\n"})
    path, list_file = folder / "Annotations" / "000.xml", folder / "ImageSets" / "Main" / "all.txt"
    whole, names = path.read_bytes(), list_file.read_bytes()
    for seed in lot:
        rng = np.random.default_rng([2, seed])
        path.write_bytes(whole)
        list_file.write_bytes(names)
        target = list_file if seed % 10 == 0 else path
        if seed % 3 and target is path:
            path.write_bytes(damaged_words(whole.decode(), rng, "<>"))
        else:
            target.write_bytes(damaged_bytes(target.read_bytes(), rng))
        for on_bad, split in (("error", "all"), ("skip", "all"), ("error", None)):
            looked_at(
                lambda on_bad, split=split: load_voc(folder, split, on_bad=on_bad),
                folder if target is path and split is None else list_file,
                on_bad,
            )


@pytest.mark.parametrize("lot", seeds(500, 50))
def test_damaged_tables(folder, lot):
    path = folder / "table.csv"
    lines = ["image,x1,y1,x2,y2,label"]
    lines += [f'{n}.jpg,{",".join(map(str, box))},"red"' for n, boxes in BOXES.items() for box in boxes]
    for seed in lot:
        rng = np.random.default_rng([3, seed])
        text = "\n".join(lines).replace(",", ",;\t|"[seed % 4])
        if seed % 3:
            path.write_bytes(damaged_words(text, rng, ",;\t|\n"))
        else:
            path.write_bytes(damaged_bytes(text.encode(), rng))
        for on_bad in ("error", "skip"):
            looked_at(lambda on_bad: load_csv(path, folder / "photos", on_bad=on_bad), path, on_bad)


FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM", "JPEG2000", "ICO"]


@pytest.mark.parametrize("lot", seeds(600, 60))
def test_damaged_images(tmp_path, lot):
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for seed in lot:
        rng = np.random.default_rng([4, seed])
        stream = io.BytesIO()
        kind = FORMATS[seed % len(FORMATS)]
        try:
            noise.save(stream, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
        except (KeyError, OSError):  # a Pillow without this format
            continue
        path = tmp_path / f"image{seed}.bin"
        path.write_bytes(damaged_bytes(stream.getvalue(), rng, bytes(range(256))))
        for source, name in ((path, path.name), (path.read_bytes(), "bytes>"), (path.open("rb"), path.name)):
            began = time.monotonic()
            for look in (read_image, image_size, decoded_size):
                if look is decoded_size and source is not path:
                    continue
                try:
                    answer = look(source)
                    assert look is not read_image or (answer.dtype == np.uint8 and answer.shape[2:] == (3,))
                except ImageError as error:
                    assert name in str(error)
            assert time.monotonic() - began < SECONDS
        path.unlink()
