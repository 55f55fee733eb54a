"""The workers of a training on several machines: who they are, whether all are there, and joining again."""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

logger = logging.getLogger(__name__)

_PAUSE = 0.2  # seconds between two tries
# losses after which no program is started anew: at one and the same step, and without getting any further
SAME_STEP, NO_FURTHER = 3, 10
# what `rejoin` has to know of the program before, in its environment
_LOSSES = "KERAS_RCNN_LOSSES"


class ClusterError(RuntimeError):
    """TF_CONFIG that describes no cluster, or a cluster that is not there."""


class WorkerLost(ClusterError):
    """A worker has gone during the training: all begin again from the last checkpoint, see `rejoin`.

    Attributes:
        position: `(epoch, batch)` that was under way, from 0, or None before the first one.
    """

    position: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers' addresses, `"host:port"`, the chief's first, and which of them this process is."""

    addresses: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.index == 0

    def __len__(self) -> int:
        return len(self.addresses)


def read_cluster(text: str | None = None) -> Cluster:
    """What TF_CONFIG says, in the form that TensorFlow has for it.

    Args:
        text: json, None for the environment's `TF_CONFIG`.

    Returns:
        `Cluster`.

    Raises:
        ClusterError: TF_CONFIG is missing or wrong; the message says what it should be.

    Example:

    >>> read_cluster('{"cluster": {"worker": ["a:9000", "b:9000"]}, "task": {"type": "worker", "index": 1}}')
    Cluster(addresses=('a:9000', 'b:9000'), index=1)
    """
    text = os.environ.get("TF_CONFIG") if text is None else text
    if not text:
        raise ClusterError(f"TF_CONFIG is not set, and the strategy multiworker needs it. {_EXAMPLE}")
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        role, number = task["type"], int(task["index"])
        chiefs, workers = list(jobs.get("chief", ())), list(jobs.get("worker", ()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ClusterError(f"TF_CONFIG={text} is no cluster ({type(error).__name__}: {error}). {_EXAMPLE}") from error
    other = sorted(set(jobs) - {"chief", "worker"})
    if other or len(chiefs) > 1:
        raise ClusterError(
            f"TF_CONFIG={text}: there can be a chief and workers, not {', '.join(other) or 'two chiefs'}."
        )
    addresses = tuple(chiefs + workers)
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ClusterError(f"TF_CONFIG: {address!r} is no address of the form host:port.")
    if len(set(addresses)) < len(addresses):
        raise ClusterError(f"TF_CONFIG names an address twice: {', '.join(addresses)}.")
    place = {"chief": chiefs, "worker": workers}.get(role, ())
    if not 0 <= number < len(place):
        raise ClusterError(
            f"TF_CONFIG: this process is {role} {number}, but the cluster has {len(place)} of type {role}."
        )
    return Cluster(addresses, number + (len(chiefs) if role == "worker" else 0))


_EXAMPLE = (
    'It is, on each worker with another index: TF_CONFIG=\'{"cluster": {"worker": ["host0:9000", "host1:9000"]}, '
    '"task": {"type": "worker", "index": 0}}\''
)


def wait_for_all(cluster: Cluster, seconds: float = 600.0) -> None:
    """Returns when every worker of the cluster has called this; TensorFlow itself would wait for a dead one for ever.

    The workers meet at the chief's address, which is free again afterwards: TensorFlow's server takes it next.

    Args:
        cluster: `Cluster`.
        seconds: float.

    Raises:
        ClusterError: some have not come in time; their addresses are in the message, on each worker that has.
    """
    if len(cluster) == 1:
        return
    end = time.monotonic() + seconds
    (_host_the_others if cluster.chief else _meet_the_chief)(cluster, end, seconds)


def _host_the_others(cluster: Cluster, end: float, seconds: float) -> None:
    port = int(cluster.addresses[0].rpartition(":")[2])
    server = _listen(cluster.addresses[0], port, end)
    came = {}
    with server:
        while len(came) < len(cluster) - 1 and time.monotonic() < end:
            server.settimeout(max(min(end - time.monotonic(), 1.0), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            index = _hear(connection, 5.0)
            if index.isdigit() and 0 < int(index) < len(cluster):
                if int(index) in came:  # it has been restarted while it waited
                    came[int(index)].close()
                came[int(index)] = connection
            else:
                connection.close()
        missing = [address for i, address in enumerate(cluster.addresses) if i and i not in came]
        for connection in came.values():
            with connection:
                _tell(connection, f"missing {', '.join(missing)}" if missing else "go")
                _hear(connection, 5.0)  # the other side hangs up first: the port is not held back by the system
    if missing:
        raise ClusterError(_absent(missing, seconds))


def _listen(address: str, port: int, end: float) -> socket.socket:
    """A server on the port; a run before this one may still hold it for a moment."""
    while True:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
            server.listen()
            return server
        except OSError as error:
            server.close()
            if time.monotonic() > end:
                raise ClusterError(f"{address}: this worker's port cannot be used ({error.strerror}).") from error
            time.sleep(_PAUSE)


def _meet_the_chief(cluster: Cluster, end: float, seconds: float) -> None:
    host, _, port = cluster.addresses[0].rpartition(":")
    while time.monotonic() < end:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0) as connection:
                _tell(connection, str(cluster.index))
                # the chief answers when it has all of us, or when its own time is up
                reply = _hear(connection, end - time.monotonic() + 10.0)
        except OSError:
            reply = ""
        if reply == "go":
            return
        if reply.startswith("missing "):
            raise ClusterError(_absent(reply.removeprefix("missing ").split(", "), seconds))
        time.sleep(_PAUSE)  # not there yet, or still the server of the run before
    raise ClusterError(_absent(cluster.addresses[:1], seconds))


def _absent(addresses: Sequence[str], seconds: float) -> str:
    return (
        f"No worker has come from {', '.join(addresses)} in {seconds:g} seconds. Is it running, with the same cluster "
        "in its TF_CONFIG, and does the network let its port through?"
    )


def _tell(connection: socket.socket, text: str) -> None:
    try:
        connection.sendall(text.encode() + b"\n")
    except OSError:
        logger.info("a worker hung up while the cluster gathered")


def _hear(connection: socket.socket, seconds: float) -> str:
    """One line, or what came of it before the time was up or the other side hung up."""
    text = b""
    end = time.monotonic() + seconds
    try:
        while not text.endswith(b"\n") and len(text) < 4096:
            connection.settimeout(max(end - time.monotonic(), 0.01))
            part = connection.recv(1)
            if not part:
                break
            text += part
    except OSError:
        pass
    return text.decode(errors="replace").strip()


@contextlib.contextmanager
def watched(cluster: Cluster | None, where: str = "") -> Iterator[None]:
    """Within the block TensorFlow's errors that mean a worker has gone are `WorkerLost`; without a cluster, nothing.

    Building a model is to be watched too: its variables are the chief's.

    Args:
        cluster: `Cluster` or None.
        where: what to say in the message behind "has gone".
    """
    try:
        yield
    except Exception as error:
        if cluster is None or not _is_loss(error):
            raise
        others = [address for i, address in enumerate(cluster.addresses) if i != cluster.index]
        _, mark, reason = str(error).rpartition("aborted by: ")
        message = " ".join((reason if mark else str(error)).split())[:200]
        raise WorkerLost(
            f"A worker of the cluster has gone{where}; the others are {', '.join(others)}. All must begin again from "
            f"the last checkpoint (--resume). TensorFlow says: {message}"
        ) from error


def _is_loss(error: Exception) -> bool:
    import tensorflow as tf

    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    )
    return isinstance(error, (*lost, tf.errors.InternalError, tf.errors.UnknownError))


def rejoin(*more: str, without: Sequence[str] = ()) -> NoReturn:
    """Starts this process's program anew, in its place, with the same arguments and those of `more` that it lacks, but
    none of `without`.

    What is left of a cluster whose worker is lost can do nothing else: TensorFlow's runtime cannot be started twice in
    a process. The new program waits for the lost worker in `wait_for_all`.

    It is to be called where the `WorkerLost` is handled, as below. What fails at the same step each time, or gets no
    further, would be started for ever: the third loss at one step ends the run, and the tenth that has not got further
    than one before. A loss further on begins the count anew. It goes from program to program in the environment.

    Raises:
        ClusterError: the training is lost at the same place again and again; the message says where.

    Example:

    >>> try:
    ...     fit(model, batches, epochs=12, strategy=strategy)
    ... except WorkerLost:
    ...     rejoin("--resume")
    """
    _count_loss(getattr(sys.exc_info()[1], "position", None))
    arguments = [argument for argument in sys.orig_argv[1:] if argument not in without]
    arguments += [argument for argument in more if argument not in arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *arguments])


def _count_loss(position: tuple[int, int] | None) -> None:
    """Notes in the environment where the training was lost; raises a ClusterError if it is no use to go on."""
    here = list(position or (-1, -1))
    try:
        last, furthest, same, idle = json.loads(os.environ[_LOSSES])
    except (KeyError, ValueError, TypeError):
        last, furthest, same, idle = None, [-2, -2], 0, 0
    same = same + 1 if here == last else 1
    idle = 1 if here > furthest else idle + 1
    where = f"step {here[1] + 1} of epoch {here[0] + 1}" if position else "its beginning"
    if same >= SAME_STEP or idle >= NO_FURTHER:
        lost = f"{same} times at {where}"
        if same < SAME_STEP:
            lost = f"{idle} times without getting further, now at {where}"
        raise ClusterError(
            f"The training was lost {lost}, and is not started again: something there seems to end a worker each time. "
            "Look at the end of that worker's log (kill -9 or code 137 is mostly a lack of memory). The last "
            "checkpoint is left, and --resume goes on from it."
        )
    os.environ[_LOSSES] = json.dumps([here, max(here, furthest), same, idle])
