"""`paste`: from masks of 28 x 28 to boolean masks of the photo, ours and torchvision's."""

import sys
from pathlib import Path

from bench.measure import peak_mb, timed


def measure(job):
    """One side: times of whole calls, and how many pixels were set."""
    call, count = (ours if job.who == "ours" else peer)(job)
    times = timed(call, job.calls)
    found = int(count(times.pop("answer")))
    return {"times": times, "found": found, "memory_mb": peak_mb()}


def ours(job):
    """The function that `model.detect` calls."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import cv2

    if job.threads:
        cv2.setNumThreads(job.threads)
    from keras_rcnn.data.paste import paste_masks

    masks, boxes = blobs(job)
    return lambda: paste_masks(masks, boxes, *job.size), lambda pasted: pasted.sum()


def peer(job):
    """torchvision's `paste_masks_in_image`, whose answer is probabilities; to compare, thresholded at 0.5."""
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    if job.threads:
        torch.set_num_threads(job.threads)
    masks, boxes = (torch.from_numpy(values) for values in blobs(job))

    def call():
        with torch.inference_mode():
            pasted = paste_masks_in_image(masks[:, None], boxes, tuple(job.size))
            return pasted >= 0.5 if job.form == "boolean" else pasted

    return call, lambda pasted: (pasted >= 0.5).sum()


def blobs(job):
    """Ellipses [n, 28, 28] as probabilities; boxes from 1/40 of the photo's side to all of it, some sticking out."""
    import numpy as np

    rng = np.random.default_rng(0)
    height, width = job.size
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    radius = rng.uniform(0.5, 1.0, (2, job.masks, 1, 1))
    masks = 1 / (1 + np.exp(8 * ((x / radius[0]) ** 2 + (y / radius[1]) ** 2 - 1)))
    sides = np.exp(rng.uniform(np.log(1 / 40), 0, (job.masks, 2))) * (width, height)
    corners = rng.uniform(-0.05, 1.0, (job.masks, 2)) * ((width, height) - 0.9 * sides)
    return masks.astype(np.float32), np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
