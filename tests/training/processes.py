"""Running `tests.training.runner`, on one device or as the workers of a cluster."""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np


def start(settings, **environment):
    """A training as a process."""
    command = [sys.executable, "-m", "tests.training.runner", json.dumps(settings)]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process, seconds=900, code=0):
    """Its output, when it has ended as it should."""
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == code, f"ended with {process.returncode}: {output[-3000:]}"
    return output


def addresses(count):
    """Addresses of this machine with free ports."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return found


def tf_config(workers, index):
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def train(settings, out, **environment):
    """A training to its end: `(weights, losses)`."""
    finish(start({**settings, "out": str(out)}, **environment))
    return result(out)


def train_cluster(settings, out, count):
    """The same by so many workers; one that is killed is started again."""
    workers = addresses(count)

    def worker(index):
        own = {**settings, "strategy": "multiworker", "out": str(out)}
        return start(own, TF_CONFIG=tf_config(workers, index))

    running = {index: worker(index) for index in range(count)}
    end = time.monotonic() + 1200
    try:
        while running and time.monotonic() < end:
            for index, process in list(running.items()):
                if process.poll() == -9:
                    process.communicate()
                    running[index] = worker(index)
                elif process.poll() is not None:
                    finish(running.pop(index))
            time.sleep(0.2)
        assert not running, f"workers {sorted(running)} have not ended"
    finally:
        for process in running.values():
            process.kill()
    return result(out)


def result(out):
    """`(weights, {(epoch, batch): logs})`; of a batch that was taken twice, the later."""
    with np.load(out.with_suffix(".npz")) as file:
        weights = [file[key] for key in file.files]
    rows = [json.loads(line) for line in out.with_suffix(".txt").read_text().splitlines()]
    return weights, {(epoch, batch): logs for epoch, batch, logs in rows}


def worst(a, b):
    """The largest difference of weights, relative to the largest weight of its tensor."""
    return max(float(np.abs(x - y).max() / np.abs(x).max()) for x, y in zip(a, b, strict=True))
