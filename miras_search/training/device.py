"""Where a training runs, on how many threads, and how much memory it took."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from miras_search.errors import EnvironmentProblem

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


def resolve(name: str) -> torch.device:
    """The device of a name: `auto` is CUDA where there is one. Raises `EnvironmentProblem` if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EnvironmentProblem(f"device '{name}' is not a device; take auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise EnvironmentProblem(f"device '{name}' is not supported; take auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise EnvironmentProblem(f"device '{name}' is not there ({found} CUDA devices found); take auto or cpu")
    return device


@contextlib.contextmanager
def settled(device: torch.device, threads: int | None) -> Iterator[None]:
    """Run torch on this device and so many threads, None leaving their number alone; both are restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    # Triton launches on the current device, whichever one its tensors are on
    current = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    try:
        with current:
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators follow the seed, for the dropout of a user's layer; afterwards they are as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


@functools.cache
def _libc() -> ctypes.CDLL | None:
    """glibc, or None where the C library is another one."""
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:
        return None


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks for the next step instead of handing them to the kernel; whether it could.

    A step frees and takes the same megabyte-sized blocks every time. By default glibc unmaps them and every step faults
    its pages in again: 1,200 faults and 8 % of the time of a small model's step. Once a process; a no-op without glibc.
    """
    libc = _libc()
    if libc is None:
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    large, spare = 1 << 30, 64 << 20  # bytes
    settings = ((mmap_threshold, large), (trim_threshold, large), (top_pad, spare))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def _large_pages(libc: ctypes.CDLL) -> bool:
    """Have what the heap grows by in pages of 2 MB, where Linux gives them on request; whether it does.

    The tensors of a small model's step lie in more pages of 4 KB than the processor has translations at hand: 3 % of
    its time. Only addresses are reserved. Needs `keep_freed_memory`, else what is freed here leaves the heap.
    """
    size, page, on_request = 512 << 20, 2 << 20, 14  # bytes, bytes, MADV_HUGEPAGE
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(size))
    if block is None:
        return False
    first = -(-block // page) * page
    given: int = libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(block + size - page - first), on_request)
    libc.free(ctypes.c_void_p(block))
    return given == 0


def start_peak(device: torch.device) -> None:
    """Give free memory back and start a new peak, so that a worker's second job does not report the first one's memory.

    On a CPU the peak is the process's high-water mark, which Linux resets on request; where it does not, the mark of
    the whole process so far remains.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.init()  # a process that has not used the device yet has no statistics to reset
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    if (libc := _libc()) is not None:
        libc.malloc_trim(0)
        _large_pages(libc)  # anew: trimming gave back those of the job before
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Largest memory since `start_peak`: allocated by torch on a GPU, resident in the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
