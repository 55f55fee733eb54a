"""Ray Data's rows are the command's: two workers on this machine."""

import os
import sys

import pytest

from keras_rcnn.bulk import detect_files, list_photos, read_rows
from keras_rcnn.bulk.on_ray import PhotoDetector, detect_on_ray
from keras_rcnn.presets import from_preset
from tests.bulk.conftest import same


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-rcnn-zoo\[ray\]'"):
        detect_on_ray(None, "nuclei_frcnn", workers=2)


def test_a_workers_rows_are_the_commands(photos, model, preset, tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow", reason="Parquet is tested where the extra is: pip install -e '.[bulk]'")
    folder, paths = photos
    detect_files(model, folder, tmp_path / "found.parquet", score=0.0, progress=False)
    monkeypatch.setattr("keras_rcnn.presets.from_preset", lambda *_, **__: model)
    worker = PhotoDetector(preset, options={"score": 0.0})
    rows = worker(pa.table({"image": paths}))
    assert rows.equals(pa.parquet.read_table(tmp_path / "found.parquet"))


@pytest.mark.slow  # three processes that import TensorFlow
def test_the_rows_of_two_workers_are_the_commands(photos, preset, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray Data is tested where the extra is: pip install -e '.[ray]'")
    pytest.importorskip("ray.data", reason="Ray Data is tested where the extra is: pip install -e '.[ray]'")
    folder, paths = photos
    detect_files(from_preset(preset), folder, tmp_path / "found.jsonl", score=0.0, progress=False)
    # the workers know the tiny backbone by the module that has it; Ray gives each one thread, which rounds otherwise
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
    setup = {"worker_process_setup_hook": "tests.bulk.test_on_ray.known", "env_vars": threads}
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", runtime_env=setup)
    try:
        given = ray.data.from_items([{"image": path} for path in list_photos(folder)], override_num_blocks=4)
        found = detect_on_ray(given, preset, workers=2, score=0.0, part_size=2, num_cpus=1)
        found.write_parquet(str(tmp_path / "found"))
    finally:
        ray.shutdown()
    rows = {row["image"]: row for file in (tmp_path / "found").glob("*.parquet") for row in read_rows(file)}
    assert sorted(rows) == sorted(paths)
    for row in read_rows(tmp_path / "found.jsonl"):
        other = rows[row["image"]]
        if "error" in row:
            assert other == row
        else:
            own = {key: value for key, value in row.items() if key not in ("image", "height", "width")}
            assert same(other, own, rounding=1e-3)


def known():
    """Registers what a preset of the tests has in it."""
    import tests.models.tiny  # noqa: F401
