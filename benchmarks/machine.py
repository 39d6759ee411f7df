"""The machine: what it is, and how quiet it is.

`calibrate` times a fixed piece of Python just before a measurement. Neighbours on a shared
machine show up there, and in nothing else that a benchmark can see.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = ("celeriac", "celery", "kombu", "flask", "gunicorn", "redis", "uvicorn", "sqlalchemy")


def describe() -> list[str]:
    """Return lines that say what this was measured on."""
    memory = psutil.virtual_memory().total / 2**30
    return [
        f"{time.strftime('%Y-%m-%d %H:%M')}, {psutil.cpu_count()} CPUs ({_model()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    ]


def _model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


def busy() -> float:
    """Return the CPU seconds that everything on this machine has used, what the host took away included."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def calibrate() -> float:
    """Return the milliseconds that a fixed loop takes now."""
    began = time.perf_counter()
    total = 0
    for number in range(500_000):
        total += number
    return 1000 * (time.perf_counter() - began)
