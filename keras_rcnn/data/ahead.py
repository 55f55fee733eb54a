"""Reading ahead: threads read the next items while the caller works on this one."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def read_ahead(
    read: Callable[[Item], Answer], items: Iterable[Item], threads: int = 1
) -> Generator[Answer, None, None]:
    """`read(item)` for each item, in order, with up to `threads` of them being read ahead.

    Args:
        read: function of one item; it runs in a thread.
        items: iterable, taken one by one.
        threads: int; less than 1 is taken as 1.

    Yields:
        What `read` returns. An exception in it is raised at the item's turn. If the caller stops early and closes the
        generator, what has not begun is not read.
    """
    threads = max(threads, 1)
    pool, waiting = ThreadPoolExecutor(threads), deque()
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
