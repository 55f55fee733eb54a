"""Damages files and JSON in reproducible ways, for tests that nothing but the package's own errors comes of it."""

import copy
import json
import random
import resource
import time

VALUES = (
    None, True, False, 0, -1, 1, 3, 0.5, -0.5, 1e308, float("nan"), float("inf"), 10**5, 10**9, 10**30, "", "x", "../x",
    "/dev/zero", "file:///dev/zero", "\x1b[2J", [], [[]], {}, [None], [10**6], [-1, "x"], [1] * 2000, {"x": 1},
    {"class_name": "Lambda", "module": "keras.layers", "config": {}},
    {"class_name": "system", "module": "os", "config": {}, "registered_name": "os>system"},
    {"class_name": "__lambda__", "config": {"value": ["", None, None]}},
    {"class_name": "function", "module": "os", "config": "system", "registered_name": "function"},
    {"class_name": "FPN", "module": "keras_rcnn.layers.fpn", "config": {}, "registered_name": "keras_rcnn>FPN"},
)  # fmt: skip


def places(value, path=()):
    """The way to everything in a tree of dicts and lists, but not to the tree."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield (*path, key)
        yield from places(one, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def damaged_json(record, seed):
    """The bytes of a file with a record in it that is damaged in one or several places."""
    rng = random.Random(seed)
    record = copy.deepcopy(record)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        ways = list(places(record))
        if not ways:
            break
        *path, key = rng.choice(ways)
        parent = at(record, path)
        kind = rng.choice(("value", "value", "value", "delete", "rename", "other", "grow", "nest"))
        if kind == "value":
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        elif kind == "delete":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            parent[rng.choice(("turbo", "name", "class_name", "config", "build_config", "\u202e"))] = parent.pop(key)
        elif kind == "other":
            parent[key] = copy.deepcopy(at(record, rng.choice(ways[: len(ways) // 2])))
        elif kind == "grow" and isinstance(parent[key], (int, float, list, str)) and parent[key] is not True:
            parent[key] = parent[key] * rng.choice((2, 1000))
        elif kind == "nest":
            for _ in range(rng.choice((1, 40))):
                parent[key] = [parent[key]]
    text = json.dumps(record).encode()
    kind = rng.choice(("whole", "whole", "whole", "whole", "cut", "flip", "deep"))
    if kind == "deep":
        return text.replace(b": ", b": " + b"[" * rng.choice((10, 100_000)), 1)
    return text if kind == "whole" else damaged_bytes(text, rng)


def damaged_bytes(data, rng):
    """Bytes that are cut, overwritten, doubled or grown."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        i = rng.randrange(len(data) + 1)
        size = rng.choice((1, 1, 4, 8, 100))
        kind = rng.choice(("flip", "flip", "numbers", "cut", "drop", "double", "insert", "swap"))
        if kind == "flip" and i < len(data):
            data[i] ^= 1 << rng.randrange(8)
        elif kind == "numbers":
            data[i : i + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * len(data[i : i + size])
        elif kind == "cut":
            del data[i:]
        elif kind == "drop":
            del data[i : i + size]
        elif kind == "double":
            data[i:i] = data[i : i + 10 * size]
        elif kind == "insert":
            data[i:i] = rng.randbytes(size)
        elif kind == "swap":
            j = rng.randrange(len(data) + 1)
            data[i : i + size], data[j : j + size] = data[j : j + size], data[i : i + size]
    return bytes(data)


def limited(size=2 * 10**9, seconds=60):
    """Gives this process so many bytes more of memory, and an end to a computation that goes on longer.

    The seconds are of the processor, since others may use it too; what waits without computing has ten times as many.

    Returns a function that is called before each trial: it winds up the clock.
    """
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + size, now + size))

    def wind():
        import signal

        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)  # the end: no exception that something might catch
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(10 * seconds)
        return time.monotonic()

    return wind
