"""Size, milliseconds and AP of exported files, and their table."""

import json

import pytest

from tests.export.detectors import detector
from tests.models.tiny import shapes
from tools.pages import litert as measure

pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")


@pytest.mark.slow
def test_a_file_is_measured_and_tabled(tmp_path):
    model = detector("faster")
    dataset = shapes(3, classes=model.class_names)
    found = measure.measure_litert(model, dataset, None, size=128, precisions=("float32",), threads=1, progress=False)
    (row,) = found["rows"]
    assert found["size"] == [128, 128] and found["images"] == 3 and found["threads"] == 1
    assert row["bytes"] > 10_000 and row["ms"] > 0 and 0 <= row["AP"] <= row["AP50"] <= 1
    measure.write_litert(tmp_path, found)
    assert json.loads((tmp_path / "litert.json").read_text()) == found
    lines = measure.litert_table(tmp_path).splitlines()
    assert lines[0] == "| precision | MB | ms | box AP | box AP50 |" and lines[2].startswith("| float32 | ")


def test_the_zoo_has_them():
    from keras_rcnn.presets import zoo_folder

    for name, columns in (("nuclei_frcnn", 5), ("nuclei_mrcnn", 7)):
        rows = {row["precision"]: row for row in json.loads((zoo_folder() / name / "litert.json").read_text())["rows"]}
        assert list(rows) == ["float32", "float16", "dynamic", "int8"]
        assert rows["int8"]["AP50"] > rows["float32"]["AP50"] - 0.02
        assert measure.litert_table(zoo_folder() / name).splitlines()[0].count("|") == columns + 1
