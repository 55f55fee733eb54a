"""Writes zoo/fasterrcnn_*/preset.json and manifest.json: torchvision's COCO detectors, downloaded at their first use."""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# name -> (title, file, its size in MB, COCO val2017 box AP), from torchvision 0.28's own records
PUBLISHED = {
    "fasterrcnn_resnet50_fpn": (
        "COCO: Faster R-CNN, ResNet-50 + FPN", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 159.743, 37.0
    ),
    "fasterrcnn_resnet50_fpn_v2": (
        "COCO: Faster R-CNN v2, ResNet-50 + FPN", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 167.104, 46.7
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": (
        "COCO: Faster R-CNN, MobileNetV3-Large + FPN", "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", 74.239, 32.8
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        "COCO: Faster R-CNN, MobileNetV3-Large 320 + FPN",
        "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
        74.239,
        22.8,
    ),
}  # fmt: skip


def main():
    import keras

    from keras_rcnn.convert import COCO_NAMES
    from keras_rcnn.convert.build import torchvision_detector

    for name, (title, file, megabytes, ap) in PUBLISHED.items():
        model = torchvision_detector(name, class_names=list(COCO_NAMES))
        info = {
            "name": name,
            "title": title,
            "license": "BSD-3-Clause (torchvision); COCO images and annotations have their own terms",
            "source": "https://github.com/pytorch/vision, weights COCO_V1",
            "metrics": {"dataset": "COCO val2017, as published by torchvision", "bbox": {"AP": ap / 100}},
            "weights": {
                "url": f"https://download.pytorch.org/models/{file}",
                "file": file,
                "size": round(megabytes * 1e6),
                "sha256_prefix": file.rsplit("-", 1)[1].removesuffix(".pth"),
                "converter": "torchvision",
                "model": name,
            },
            "detector": keras.saving.serialize_keras_object(model),
        }
        folder = ROOT / "zoo" / name
        folder.mkdir(exist_ok=True)
        (folder / "preset.json").write_text(json.dumps(info, indent=1) + "\n")
        manifest = {w.path: list(w.shape) for w in model.weights}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=0) + "\n")


if __name__ == "__main__":
    main()
