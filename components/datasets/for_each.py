"""Independent pieces of work on as many threads as torch may use here."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def for_each(work: Callable[[int], None], count: int) -> None:
    """`work(i)` for 0 <= i < count, in any order; raises what the first failing one raised.

    Pays where the work is in numpy or torch, which let other Python threads run meanwhile.
    """
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        for i in range(count):
            work(i)
        return

    def some(first: int) -> None:
        for i in range(first, count, threads):
            work(i)

    for done in [_pool(threads).submit(some, first) for first in range(threads)]:
        done.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="clips")
