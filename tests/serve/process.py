"""A service in a process of its own, as the command starts it, and clients that keep asking it."""

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# the tiny backbone is the tests' own class
COMMAND = "import sys, tests.export.detectors\nfrom keras_rcnn.cli import main\nsys.exit(main(sys.argv[1:]))"


class Process:
    """`port`, the process, and its log as soon as it has ended."""

    def __init__(self, arguments, folder):
        self.log = folder / f"log{time.monotonic_ns()}"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "serve", "--port", "0", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=environment,
                text=True,
                # a shell's background jobs, CI's perhaps, ignore Ctrl-C, and so do their children
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        line = self.process.stdout.readline()
        found = re.search(r"http://127.0.0.1:(\d+)/docs", line)
        assert found, line + self.log.read_text()
        self.port = int(found[1])

    def post(self, body, path="/detect", timeout=60):
        """-> (status, content)."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            connection.request("POST", path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def resident(self):
        """MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    def end(self, number=signal.SIGTERM):
        """Sends a signal -> the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def started(arguments, folder):
    """A service that is killed at the end of the block."""
    process = Process([str(one) for one in arguments], folder)
    try:
        yield process
    finally:
        process.end(signal.SIGKILL)


class Clients:
    """Threads that ask again and again, each over connections that it keeps; and what came of it.

    `answers`: (status, content); `lost`: errors after a request was sent over a connection of its own, or one that the
    service had not announced to close; `refused`: connections that were never made.
    """

    def __init__(self, port, bodies, count, keep=True):
        self.port, self.bodies, self.keep = port, bodies, keep
        self.answers, self.lost, self.refused, self.seconds = [], [], 0, []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._go, args=(i,)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _go(self, place):
        connection = None
        while not self.stopped.is_set():
            place += 1
            key, body = self.bodies[place % len(self.bodies)]
            try:
                if connection is None or not self.keep or connection.sock is None:
                    if connection is not None:
                        connection.close()
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                    connection.connect()
            except OSError:
                self.refused += 1
                self.stopped.wait(0.01)
                continue
            start = time.monotonic()
            try:
                connection.request("POST", "/detect", body)
                answer = connection.getresponse()
                self.answers.append((key, answer.status, answer.read()))
                self.seconds.append(time.monotonic() - start)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
        if connection is not None:
            connection.close()

    def end(self):
        """Waits for the last answers."""
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)
