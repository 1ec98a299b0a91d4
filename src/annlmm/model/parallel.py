"""One outer pool of threads over blocks, BLAS at one thread in each: nested pools fight over the cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = Lock()
_users = 0
_limit: Any = None
_controller: ThreadpoolController | None = None


def _after_fork() -> None:
    """In a child: another thread may have held the lock, or BLAS, and is not there to let go."""
    global _lock, _users, _limit
    _lock = Lock()
    if _users:
        _users = 0
        _limit.restore_original_limits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def processors() -> int:
    """That this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread; the limit is the process's, so that concurrent users share it and the last one lifts it."""
    global _users, _limit, _controller
    with _lock:
        if _users == 0:
            # Finding the libraries takes milliseconds and they do not change.
            _controller = _controller or ThreadpoolController()
            _limit = _controller.limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.restore_original_limits()


def map_blocks(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`function` of every item, in order, with at most `threads` + 1 blocks in memory.

    The items are made in the calling thread (readers of files need not be safe for threads). An exception, or an
    interrupt, cancels what has not begun.
    """
    with one_blas_thread():
        if threads <= 1:
            yield from map(function, items)
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="annlmm") as pool:
            waiting: deque[Future[Result]] = deque()
            try:
                for item in items:
                    waiting.append(pool.submit(function, item))
                    if len(waiting) > threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
