"""`keras-rcnn convert detectron2`."""

import json
import pickle

import numpy as np
import pytest

import keras_rcnn
from keras_rcnn import cli
from keras_rcnn.cli.arguments import changes_of
from tests.convert.detectron2_states import random_state
from tests.detectron2 import golden, golden_state, needs_detectron2
from tests.models.test_detectron2_golden import C4, MASK, same_detections, same_masks
from tests.shared import SHARED, whole_model


@pytest.fixture
def run(capsys):
    """Runs a command line; `(exit code, stdout, stderr)`."""

    def run(*argv):
        code = cli.main([str(one) for one in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write(path, state):
    path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}, 4))
    return path


def test_changes():
    assert changes_of(["A=1", "B=[[1], [2.5]]", " C = BGR ", "D=True", "E=a=b"]) == {
        "A": 1,
        "B": [[1], [2.5]],
        "C": "BGR",
        "D": True,
        "E": "a=b",
    }
    with pytest.raises(ValueError, match="KEY=VALUE"):
        changes_of(["A"])


def test_what_is_refused(run, tmp_path, capsys):
    common = ["convert", "detectron2", "--out", tmp_path / "out", "--weights"]
    weights = write(tmp_path / "a.pkl", {"a": np.zeros(3, np.float32)})
    for more, message in (
        (["--model", "retinanet_R_50_FPN_1x"], "no config of Detectron2's zoo"),
        (["--model", MASK], "are not the weights of"),
        (["--model", MASK, "--set", "MODEL.NMS=1"], "MODEL.RPN.NMS_THRESH"),
        (["--model", MASK, "--set", "MODEL.NMS"], "KEY=VALUE"),
    ):
        code, _, err = run(*common, weights, *more)
        assert code == 2 and message in err, err
    with pytest.raises(SystemExit):  # other sources have no settings
        run("convert", "torchvision", "--model", "a", "--out", tmp_path / "out", "--weights", weights, "--set", "A=1")
    assert "unrecognized arguments: --set A=1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_model_of_ones_own(run, tmp_path):
    name = "faster_rcnn_R_50_FPN_1x"
    state = random_state(name)
    predictor = "roi_heads.box_predictor"
    for part, rows in (("cls_score", 4), ("bbox_pred", 12)):
        for kind in ("weight", "bias"):
            state[f"{predictor}.{part}.{kind}"] = state[f"{predictor}.{part}.{kind}"][:rows]
    command = ["convert", "detectron2", "--model", name, "--weights", write(tmp_path / "a.pkl", state)]
    changed = ["--set", "MODEL.ROI_HEADS.NUM_CLASSES=3", "--set", "INPUT.MIN_SIZE_TEST=600"]
    code, _, err = run(*command, "--out", tmp_path / "out", "--classes", "a,b")
    assert code == 2 and "--classes has 2 names" in err
    code, _, err = run(*command, "--out", tmp_path / "out", "--set", "MODEL.ROI_HEADS.NUM_CLASSES=5")
    assert code == 2 and "NUM_CLASSES is 5" in err
    code, printed, err = run(*command, "--out", tmp_path / "out", "--classes", "a,b,c", *changed)
    assert code == 0 and "3 classes" in printed, err
    config = json.loads((tmp_path / "out" / "preset.json").read_text())["detector"]["config"]
    assert config["class_names"] == ["a", "b", "c"] and config["num_classes"] == 3
    assert config["preprocessor"]["config"]["min_size"] == 600


@needs_detectron2
@pytest.mark.parametrize("name", [whole_model(MASK, in_ci=False), whole_model(C4, in_ci=True)])
def test_a_preset_detects_as_detectron2(run, name, tmp_path):
    info, theirs = golden(f"{name}.json"), golden(f"{name}__coffee_small.npz")
    weights = write(tmp_path / "model_final.pkl", golden_state(name))
    changes = {**info["settings"]["overrides"], "INPUT.MIN_SIZE_TEST": 320, "INPUT.MAX_SIZE_TEST": 480}
    changed = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    out = tmp_path / "preset"
    code, _, err = run("convert", "detectron2", "--model", name, "--weights", weights, "--out", out, *changed)
    assert code == 0, err
    model = keras_rcnn.from_preset(out)
    assert model.class_names[::79] == ["person", "toothbrush"]
    found = model.detect(SHARED / "golden" / info["cases"]["coffee_small"]["image"], score=0.0)
    partner = same_detections(found, theirs)
    same_masks(found["masks"], theirs, partner)
    if name == C4:  # one stage, and not two of the same numbers
        assert model.parts["mask_pool"] is model.parts["box_pool"]
        again = type(model).from_config(model.get_config())
        assert [weight.path for weight in again.weights] == [weight.path for weight in model.weights]
        mine = keras_rcnn.from_preset(out, class_names=["person", "fig"])
        assert mine.parts["mask_pool"] is mine.parts["box_pool"] and mine.num_classes == 2
