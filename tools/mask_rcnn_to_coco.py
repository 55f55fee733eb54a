"""Writes a data set of Matterport's Mask_RCNN as COCO json, which keras_rcnn reads.

Copy this file beside your old training script and call it there, in your old environment. It needs numpy and nothing of
keras_rcnn, and runs on Python 3.5 and later:

    from mask_rcnn_to_coco import write_coco

    dataset_train.prepare()
    write_coco(dataset_train, "train.json")

Then, with keras_rcnn: `keras-rcnn check train.json` and `keras-rcnn train --coco train.json --out runs/mine`.
"""

import json
import os
import struct
import sys
import zlib

import numpy as np


def write_coco(dataset, path, images=None):
    """Writes the photos' names, the classes, and each object's box and mask.

    Args:
        dataset: An `mrcnn.utils.Dataset` that is prepared (`dataset.prepare()`).
        path: Where the json goes. Nothing is left there if writing fails.
        images: Folder for photos that are in no file because `load_image` makes them; default: "images" beside `path`.
            They are written as PNG, and only if there are any.

    Returns:
        The number of photos and the number of objects that were written.

    Raises:
        ValueError: If the data set is not prepared, or a mask is not of its photo's size.
    """
    if not len(getattr(dataset, "image_ids", ())):
        raise ValueError("The data set has no image_ids. Load its photos, then call dataset.prepare().")
    path = os.path.abspath(path)
    images = os.path.abspath(images or os.path.join(os.path.dirname(path), "images"))
    categories = [{"id": i, "name": info["name"]} for i, info in enumerate(dataset.class_info) if i]
    records, annotations = [], []
    for image_id in dataset.image_ids:
        image_id = int(image_id)
        name, height, width = _photo(dataset, image_id, images)
        records.append({"id": image_id, "file_name": name, "height": height, "width": width})
        masks, class_ids = dataset.load_mask(image_id)
        masks, class_ids = np.asarray(masks).astype(bool), np.asarray(class_ids).ravel()
        if masks.size and masks.shape[:2] != (height, width):
            raise ValueError(
                "{}: its masks are {} x {} px, but the photo is {} x {}".format(
                    name, masks.shape[1], masks.shape[0], width, height
                )
            )
        for i, class_id in enumerate(class_ids if masks.size else ()):
            annotation = _annotation(masks[:, :, i], int(class_id))
            if annotation is not None:
                annotations.append(dict(annotation, id=len(annotations) + 1, image_id=image_id))
        if len(records) % 50 == 0 or len(records) == len(dataset.image_ids):
            sys.stderr.write("\r{} of {} photos".format(len(records), len(dataset.image_ids)))
            sys.stderr.flush()
    sys.stderr.write("\n")
    content = {"images": records, "annotations": annotations, "categories": categories}
    part = path + ".part"
    try:
        with open(part, "w") as file:
            json.dump(content, file)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)
    return len(records), len(annotations)


def _photo(dataset, image_id, images):
    """Path, height and width of a photo; one that is in no file is written into one."""
    info = dataset.image_info[image_id]
    path = info.get("path")
    if path and os.path.isfile(path):
        if info.get("height") and info.get("width"):
            return os.path.abspath(path), int(info["height"]), int(info["width"])
        image = dataset.load_image(image_id)
        return os.path.abspath(path), int(image.shape[0]), int(image.shape[1])
    image = np.asarray(dataset.load_image(image_id))
    if not os.path.isdir(images):
        os.makedirs(images)
    target = os.path.join(images, "{:06d}.png".format(image_id))
    _write_png(target, image)
    return target, int(image.shape[0]), int(image.shape[1])


def _annotation(mask, class_id):
    """An object as COCO has it; None for an empty mask. Classes below 0 are Mask_RCNN's crowds."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows) or not class_id:
        return None
    x, y = int(columns[0]), int(rows[0])
    pixels = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(pixels))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    if not counts[-1]:  # the mask ends with the photo
        counts.pop()
    return {
        "category_id": abs(class_id),
        "iscrowd": int(class_id < 0),
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(mask.sum()),
        "segmentation": {"size": list(mask.shape), "counts": counts},
    }


def _write_png(path, image):
    """Writes uint8 `[height, width, 3]`, or `[height, width]`; old environments may have no library that does it."""
    image = np.ascontiguousarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ValueError(
            "{}: load_image gave {} {}, not uint8 [height, width, 3]".format(path, image.dtype, image.shape)
        )
    kind = {2: 0, 3: 2 if image.shape[-1] == 3 else 6}[image.ndim]
    rows = image.reshape(image.shape[0], -1)
    lines = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, kind, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
