"""Freed memory that stays with the process: training steps ask for the same sizes again."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
KEEP = 1 << 30
LARGEST = 32 << 20  # more than this is not taken by glibc
# Environment of a process that trains in a thread other than its main one: threads otherwise get
# an arena each, of heaps that go back to the system whenever one is empty, whatever is set below.
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}


def keep_freed_memory() -> bool:
    """Tell glibc not to hand freed memory back to the system; whether it took that.

    By default every activation of some size is fetched from the system anew and filled page by
    page, in every pass. For CPU training only: on a GPU torch has its own allocator. It holds for
    the main thread, and for any other with `ONE_ARENA` in the process's environment.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(TRIM_THRESHOLD, KEEP)) and bool(mallopt(MMAP_THRESHOLD, LARGEST))
