"""Hundreds of instances in one large image: training and evaluation stay small in memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

# in a process of its own: the peak of a process is all that it ever held
PROGRAM = """
import keras, numpy as np
from bench.measure import peak_mb
from pycocotools import mask as coco
from keras_rcnn.data import Dataset, Record
from keras_rcnn.evaluation import evaluate
from keras_rcnn.presets import from_preset

side, cells = 3000, 20
model = from_preset("nuclei_mrcnn")
rng = np.random.default_rng(0)
image = rng.integers(0, 60, (side, side, 3)).astype(np.uint8)
boxes, masks = [], []
for cell in range(300):
    y, x = cell // cells * 150 + 20, cell % cells * 150 + 20
    full = np.zeros((side, side), np.uint8, order="F")
    radius = int(rng.integers(30, 60))
    yy, xx = np.ogrid[:side, :side]
    part = (yy[y : y + 120] - y - 60) ** 2 + (xx[:, x : x + 120] - x - 60) ** 2 <= radius**2
    full[y : y + 120, x : x + 120] = part
    image[y : y + 120, x : x + 120][part] = 200
    masks.append(coco.encode(full))
    boxes.append([x + 60 - radius, y + 60 - radius, x + 61 + radius, y + 61 + radius])
record = Record(image, 1, side, side, boxes=np.float32(boxes), labels=np.zeros(300, np.int32), segmentations=masks)
data = Dataset([record], ["nucleus"], name="300")
before = peak_mb()
model.compile(keras.optimizers.AdamW(1e-4, clipnorm=5.0), jit_compile=False)
model.preprocessor = model.preprocessor.replace(min_size=960, max_size=960)
model.fit(data.batches(model.preprocessor, batch_size=1, masks=True, augment=True), epochs=3, verbose=0)
metrics = evaluate(model, data, progress=False, max_detections=300)
peak = peak_mb()
print("figures", before / 1024, peak / 1024, metrics["segm"]["AP50"])
"""


@pytest.mark.slow
def test_three_hundred_instances_in_under_six_gigabytes():
    path = {"PYTHONPATH": os.pathsep.join([str(TOOLS), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ | path)
    assert done.returncode == 0, done.stderr[-3000:]
    before, peak, ap50 = map(float, done.stdout.split("figures")[1].split())
    assert peak < 6, f"{peak:.1f} GiB, of which {before:.1f} before the training"
    assert ap50 > 0.3
