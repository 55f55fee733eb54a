"""`keras-rcnn detect --out found.parquet`, run in this process."""

import json

import pytest

from keras_rcnn import cli
from keras_rcnn.bulk import read_rows


@pytest.fixture
def run(capsys, preset, model, monkeypatch):
    """Runs `keras-rcnn detect`; `(exit code, stdout, stderr)`."""
    monkeypatch.setattr("keras_rcnn.presets.from_preset", lambda *_, **__: model)  # it is traced already

    def run(*argv):
        try:
            code = cli.main(["detect", *map(str, argv)])
        except SystemExit as end:  # argparse
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_table(run, photos, tmp_path):
    folder, paths = photos
    out = tmp_path / "deep/found.jsonl"
    code, said, err = run(folder, "--score", 0, "--out", out)
    assert code == 1 and said == f"{out}: 11 photos, 3 of which could not be read\n"
    assert [row["image"] for row in read_rows(out)] == paths
    assert "11/11" in err and "photo/s" in err and "unreadable: 3" in err and "b/empty.png: empty file" in err
    # once more: done
    assert run(folder, "--score", 0, "--out", out)[:2] == (1, said)
    code, _, err = run(folder, "--score", 0.5, "--out", out)
    assert code == 2 and "score 0.0 then, 0.5 now" in err and "pass --overwrite to replace it" in err
    assert run(paths[0], "--score", 0.5, "--out", out, "--overwrite")[0] == 0


def test_a_list_as_coco_results(run, photos, coco, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(photos[1][:2]))
    code, said, _ = run(tmp_path / "list.txt", "--out", tmp_path / "found.json", "--coco", coco, "--score", 0)
    assert code == 0 and said.endswith("found.json: 2 photos\n")
    assert {one["image_id"] for one in json.loads((tmp_path / "found.json").read_text())} == {100, 101}
    code, _, err = run(tmp_path / "list.txt", "--out", tmp_path / "other.json")
    assert code == 2 and "by ids: give the COCO file that has them, --coco FILE, or write .jsonl" in err


def test_shards(run, photos, tmp_path):
    for i in (1, 2):
        code, said, _ = run(photos[0], "--score", 0, "--out", tmp_path / "found.jsonl", "--shard", f"{i}/2")
        assert f"found-{i}-of-2.jsonl: {4 + i} photos" in said
    shards = sorted(tmp_path.glob("found-*-of-2.jsonl"))
    code, said, _ = run(*shards, "--merge", "--out", tmp_path / "found.jsonl")
    assert code == 0 and said == f"{tmp_path / 'found.jsonl'}: 2 tables\n"
    assert [row["image"] for row in read_rows(tmp_path / "found.jsonl")] == photos[1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--out", "pictures", "--shard", "1/2"], "--shard is for a table"),
        (["--batch-size", "4"], "--batch-size is for a table: --out FILE.parquet, .jsonl or .json, not detections"),
        (["--out", "found.jsonl", "--json", "b.json"], "--json is for pictures"),
        (["--out", "found.jsonl", "--shard", "3/2"], "'3/2' is not I/N"),
        (["--out", "found.jsonl", "--merge", "--score", "0.5"], "--score is for detecting"),
        (["nowhere", "--out", "found.jsonl"], "nowhere: no such folder, list or photo"),
    ],
)
def test_what_is_refused(run, photos, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(photos[1][0], *argv)
    assert code == 2 and words in err
    assert not list(tmp_path.iterdir())


def test_a_folder_of_pictures_may_be_called_so(run, photos, tmp_path):
    (tmp_path / "mine.json").mkdir()
    assert run(photos[1][0], "--out", tmp_path / "mine.json")[0] == 0
    assert [path.name for path in (tmp_path / "mine.json").iterdir()] == ["a_detected.png"]


def test_an_interrupt(run, photos, tmp_path, monkeypatch, model):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "detect", interrupted)
        code, _, err = run(photos[0], "--out", tmp_path / "found.jsonl")
    assert code == 130 and "interrupted; the same command goes on from here" in err
    assert run(photos[0], "--out", tmp_path / "found.jsonl")[0] == 1
