"""`keras-rcnn export`: a preset in, a table and a folder out; an error is one line and leaves nothing."""

import pytest

from keras_rcnn.cli import main
from keras_rcnn.presets import save_preset
from tests.export.detectors import detector, encoded, photos


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "shapes"
    save_preset(detector("faster"), folder)
    return str(folder)


def test_a_preset_is_exported_and_checked(preset, tmp_path, capsys):
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "one.png").write_bytes(encoded(photos()[2]))
    out = tmp_path / "served"
    assert main(["export", preset, "--out", str(out), "--check", str(tmp_path / "check")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("one.png") == 3 and "FAILED" not in printed
    assert f"Checked against detect. Exported: {out / '1'}" in printed
    assert (out / "1" / "saved_model.pb").is_file()


def test_errors_are_a_line_and_leave_nothing(preset, tmp_path, capsys):
    empty, taken = tmp_path / "empty", tmp_path / "taken"
    empty.mkdir()
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    out = ["--out", str(tmp_path / "new")]
    for arguments, reason in (
        (["nuclei_frcn", *out], "There is no preset"),
        (["bccd_frcnn", *out], "has no weights"),
        ([preset, "--out", str(taken)], "taken exists"),
        ([preset, "--format", "litert", "--out", str(taken)], "taken exists"),
        ([preset, "--out", str(taken / "notes.txt" / "served")], "is a file"),
        ([preset, "--check", str(empty), *out], "no image files in this folder"),
        ([preset, "--format", "litert", "--precision", "int8", "--calibrate", str(empty), *out], "no images"),
        ([preset, "--precision", "int8", *out], "no option precision"),
        ([preset, "--format", "litert", "--size", "100", *out], "multiples of"),
        ([preset, "--score", "2", *out], "from 0 to 1"),
    ):
        assert main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert reason in error and error.count("\n") == 1, error
    assert sorted(one.name for one in tmp_path.iterdir()) == ["empty", "taken"]
    assert (taken / "notes.txt").read_text() == "mine"
