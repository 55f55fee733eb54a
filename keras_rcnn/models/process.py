"""Detectors in processes that were made by `fork`."""

import os

_used_in: int | None = None  # the process that first made or ran a detector


def check_process() -> None:
    """Refuses to run in a process that was forked from one in which detectors had been used.

    TensorFlow's and JAX's threads are not copied by a fork: whatever waits for them waits for ever, without a word.

    Raises:
        RuntimeError: it says what to do instead.
    """
    global _used_in
    if _used_in is None:
        _used_in = os.getpid()
    elif _used_in != os.getpid():
        raise RuntimeError(
            f"This process ({os.getpid()}) was forked from one that had used a detector ({_used_in}), and would hang: "
            "the threads of TensorFlow and JAX are not copied. Start processes by spawn and load the detector in each: "
            'multiprocessing.get_context("spawn"), or ProcessPoolExecutor(mp_context=...).'
        )
