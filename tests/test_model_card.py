"""The page of a preset on a hub: its front matter as the hub's own code reads it, and its text."""

import pytest
import yaml

from keras_rcnn.model_card import LICENSES, license_id, model_card
from keras_rcnn.presets import read_preset, zoo_folder

HANDLE = "hf://someone/figs"


def record(**entries):
    detector = {"class_name": "MaskRCNN", "config": {"num_classes": 2, "class_names": ["fig", "da_te"]}}
    return {"name": "figs", "title": "Figs", "license": "MIT", "detector": detector, **entries}


def front(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_the_zoos_card():
    card = model_card(read_preset(zoo_folder() / "nuclei_mrcnn"), HANDLE, ["detected.jpg"])
    assert front(card) == {
        "license": "other",
        "license_name": "cc0-data-dsb2018-stage-1-imagenet-weights-apache-2.0",
        "library_name": "keras_rcnn",
        "pipeline_tag": "object-detection",
        "tags": ["keras", "keras-rcnn", "object-detection", "mask-r-cnn", "instance-segmentation"],
        "metrics": ["mean_average_precision"],
        "model-index": [
            {
                "name": "nuclei_mrcnn",
                "results": [
                    {
                        "task": {"type": "object-detection"},
                        "dataset": {"type": "nuclei-val-108-images", "name": "nuclei val (108 images)"},
                        "metrics": [
                            {"type": "mean_average_precision", "name": "AP of boxes, IoU 0.50:0.95", "value": 0.516},
                            {"type": "mean_average_precision", "name": "AP of masks, IoU 0.50:0.95", "value": 0.5012},
                        ],
                    }
                ],
            }
        ],
    }
    for words in (
        "# Nuclei: Mask R-CNN, EfficientNet-Lite0 + FPN, 320 px",
        "![nuclei\\_mrcnn](detected.jpg)",
        f'model = keras_rcnn.from_preset("{HANDLE}")',
        "## Classes\n\n1: nucleus.",
        "On nuclei val (108 images):",
        "| boxes | 0.516 | 0.859 | 0.566 | 0.492 | 0.731 |",
        "## Licence\n\nCC0 data (DSB2018 stage 1); ImageNet weights Apache-2.0",
        "## Source\n\ntrained by recipe.py",
    ):
        assert words in card


def test_hugging_face_reads_it():
    hub = pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
    card = hub.ModelCard(model_card(read_preset(zoo_folder() / "nuclei_mrcnn"), HANDLE))
    assert card.data.license == "other" and card.data.library_name == "keras_rcnn"
    assert [result.metric_value for result in card.data.eval_results] == [0.516, 0.5012]
    assert hub.ModelCard(model_card(record(), HANDLE)).data.eval_results is None


def test_the_code_of_a_card_is_python():
    card = model_card(record(), HANDLE)
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
    assert "Nothing was measured." in card and "## Source" not in card


def test_what_authors_write_is_no_markup():
    """Nor does it end the front matter."""
    card = model_card(
        record(title="# <b>x</b>\n---\nlicense: mit", license="my `own`\n---\n", notes="<script>"), HANDLE
    )
    assert front(card)["license_name"] == "my-own" and card.count("\n---\n") == 1
    assert "# \\# \\<b\\>x\\</b\\> --- license: mit\n" in card and "<script>" not in card
    assert "2: fig, da\\_te." in card


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("MIT", "mit"),
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("Apache 2", "apache-2.0"),
        ("The MIT License", "mit"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("CC0", "cc0-1.0"),
        ("CC0-1.0", "cc0-1.0"),
        ("GPL-3.0-only", "gpl-3.0"),
        ("AGPL v3", "agpl-3.0"),
        ("ours", None),
        ("MIT, but not on Sundays", None),
        ("", None),
    ],
)
def test_licences(name, known):
    assert license_id(name) == known
    assert known is None or known in LICENSES
