"""TF_CONFIG, and workers that meet before TensorFlow starts."""

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from keras_rcnn.training.cluster import Cluster, ClusterError, read_cluster, wait_for_all
from tests.training.processes import addresses


def config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def test_a_cluster_is_read(monkeypatch):
    two = ["a:9000", "b:9000"]
    assert read_cluster(config({"worker": two}, index=1)) == Cluster(("a:9000", "b:9000"), 1)
    cluster = read_cluster(config({"worker": two, "chief": ["c:1"]}, index=0))
    assert cluster == Cluster(("c:1", "a:9000", "b:9000"), 1) and not cluster.chief
    assert read_cluster(config({"worker": two, "chief": ["c:1"]}, "chief")).chief
    monkeypatch.setenv("TF_CONFIG", config({"worker": ["[::1]:80"]}))
    assert read_cluster().addresses == ("[::1]:80",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "TF_CONFIG is not set"),
        ("{", "is no cluster"),
        ("[1]", "is no cluster"),
        ('{"cluster": {"worker": ["a:1"]}}', "KeyError: 'task'"),
        (config({"worker": ["a:1"]}, index=1), "this process is worker 1, but the cluster has 1 of type worker"),
        (config({"worker": ["a:1"]}, "evaluator"), "this process is evaluator 0"),
        (config({"worker": ["a"]}), "'a' is no address of the form host:port"),
        (config({"worker": ["a:99999"]}), "'a:99999' is no address"),
        (config({"worker": ["a:1", "a:1"]}), "names an address twice"),
        (config({"worker": ["a:1"], "ps": ["b:1"]}), "chief and workers, not ps"),
        (config({"worker": ["a:1"], "chief": ["b:1", "c:1"]}), "not two chiefs"),
    ],
)
def test_a_wrong_config_is_explained(monkeypatch, text, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ClusterError, match=message):
        read_cluster(text)


def gather(cluster, present, seconds, between=None):
    """What becomes of the workers that are there: None or their error."""
    results = {}

    def one(index):
        try:
            results[index] = wait_for_all(Cluster(tuple(cluster), index), seconds)
        except ClusterError as error:
            results[index] = str(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in present]
    for thread in threads:
        thread.start()
        if between:
            between()
    for thread in threads:
        thread.join(30)
    return results


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_workers_meet_twice_at_the_same_address(order):
    cluster = addresses(3)
    for _ in range(2):
        assert gather(cluster, order, 20) == {0: None, 1: None, 2: None}
    assert gather(addresses(1), [0], 0.1) == {0: None}


def test_the_missing_worker_is_named_to_all():
    cluster = addresses(3)
    errors = gather(cluster, (0, 2), 1.5)
    assert set(errors) == {0, 2}
    for error in errors.values():
        assert f"No worker has come from {cluster[1]} in 1.5 seconds" in error
    assert f"No worker has come from {cluster[0]}" in gather(cluster, (1,), 0.5)[1]


def test_a_port_that_is_taken_is_named():
    import socket

    cluster = addresses(2)
    with socket.socket() as taken:
        taken.bind(("", int(cluster[0].rpartition(":")[2])))
        taken.listen()
        with pytest.raises(ClusterError, match=f"{cluster[0]}: this worker's port cannot be used"):
            wait_for_all(Cluster(tuple(cluster), 0), 0.5)


@pytest.mark.parametrize(
    ("start", "index", "expected"),
    [
        ("#SBATCH", "SLURM_PROCID", ("n1:9000", "n2:9000")),
        ("export TF_CONFIG='{", "JOB_COMPLETION_INDEX", ("train-0.train:9000", "train-1.train:9000")),
    ],
)
def test_the_pages_scripts_say_who_is_who(tmp_path, monkeypatch, start, index, expected):
    """Slurm's and Kubernetes's, run by bash with programs in the place of theirs."""
    programs = {"scontrol": r"printf 'n1\nn2\n'", "srun": 'exec "$@"', "keras-rcnn": 'printf %s "$TF_CONFIG"'}
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    page = (Path(__file__).parents[2] / "docs/pages/devices.md").read_text(encoding="utf-8")
    script = page[page.index(start) :].partition("```")[0]
    for worker in range(2):
        monkeypatch.setenv(index, str(worker))
        printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        assert read_cluster(printed) == Cluster(expected, worker)
