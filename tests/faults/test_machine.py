"""What befalls a whole machine: its power goes, its clock jumps. Needs root and a compiler; only `make soak` takes it.

A power cut is real: the file system under the ledger is shut down without flushing, so what was not synced is gone.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import postgres
import pytest
from instance import Instance, instance, until
from oracle import violations

from celeriac.states import State

pytestmark = [pytest.mark.soak, pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts a file system")]
SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, 2  # FS_IOC_SHUTDOWN of ext4


class Disk:
    """A file system of its own in a file, whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._image = folder / "disk.img"
        self.path.mkdir()
        _run("truncate", "-s", "600M", self._image)
        _run("mkfs.ext4", "-q", "-F", self._image)
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.path)

    def restart(self) -> None:
        """Mount what is left, as after the power is back; whoever still has files of before open keeps those."""
        _run("umount", "-l", self.path)
        left = self._image.with_suffix(".left")
        _run("cp", "--sparse=always", self._image, left)
        self._image = left
        self.mount()

    def remove(self) -> None:
        _run("umount", "-l", self.path)
        shutil.rmtree(self.path.parent)

    def cut(self) -> None:
        """Lose, at once, everything that is not synced; from now on nothing can be written."""
        folder = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(folder, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        os.close(folder)


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    folder = Path(tempfile.mkdtemp(prefix="celeriac-disk-"))
    folder.chmod(0o755)  # Postgres has a user of its own
    made = Disk(folder)
    yield made
    made.remove()


def _submit_until_cut(house: Instance, cut) -> list[str]:
    acknowledged: list[str] = []

    def submit() -> None:
        with house.http as http, contextlib.suppress(httpx.HTTPError):
            while (answer := http.post("/jobs", json={"task": "echo", "args": {"value": 1}})).status_code == 202:
                acknowledged.append(answer.json()["id"])

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 200, "answers")
    cut()
    for thread in threads:
        thread.join(30)
    return acknowledged


def test_what_sqlite_has_acknowledged_survives_a_power_cut(disk: Disk, nursery):
    with instance(disk.path / "home", nursery=nursery) as house:
        house.web()
        acknowledged = _submit_until_cut(house, disk.cut)
        house.stop()
        disk.restart()

        assert violations(house.ledger, [*acknowledged, *house.submit("echo", value=1)], ended=False) == []
        house.stop()


def test_what_postgres_has_acknowledged_survives_a_power_cut(disk: Disk, nursery, tmp_path):
    folder = disk.path / "postgres"
    folder.mkdir()
    disk.path.chmod(0o755)
    server = postgres.Server(folder, "fsync=on", "full_page_writes=on")
    try:
        with instance(tmp_path / "home", database_url=server.conninfo(), nursery=nursery) as house:
            house.web()
            os.sync()  # what initdb has written
            acknowledged = _submit_until_cut(house, disk.cut)
            house.kill("web")
            server.stop(signal.SIGKILL)
            disk.restart()
            (folder / "data" / "postmaster.pid").unlink(missing_ok=True)
            server.start()

            assert violations(house.ledger, [*acknowledged, *house.submit("echo", value=1)], ended=False) == []
    finally:
        server.stop(signal.SIGQUIT)


SKEW = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static double skew(void) {
    double seconds = 0;
    FILE *file = fopen(getenv("SKEW_FILE"), "r");
    if (file) { if (fscanf(file, "%lf", &seconds) != 1) seconds = 0; fclose(file); }
    return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += (long)skew();
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a compiler")
def test_a_wall_clock_that_jumps_an_hour_either_way_takes_no_worker_for_dead(tmp_path: Path):
    (tmp_path / "skew.c").write_text(SKEW)
    _run("gcc", "-shared", "-fPIC", "-o", tmp_path / "skew.so", tmp_path / "skew.c")
    clock = tmp_path / "clock"
    clock.write_text("0")
    skewed = {"LD_PRELOAD": str(tmp_path / "skew.so"), "SKEW_FILE": str(clock)}
    with instance(tmp_path / "home") as house:
        house.keeper("keeper", **skewed)
        house.worker("skewed", concurrency=1, **skewed)
        house.worker("true", concurrency=1)
        ids = house.submit("wait", count=8, seconds=1.5)
        for jump in ("3600", "-3600", "30"):
            before = len(house.runs())
            clock.write_text(jump)
            until(lambda before=before: len(house.runs()) >= min(before + 2, 8), "jobs to run on")
        jobs = house.ended(ids)

        assert {job.state for job in jobs} == {State.SUCCEEDED}
        assert len(house.runs()) == len(ids)
        assert "taken for dead" not in house.log("keeper")
        assert violations(house.ledger, ids) == []
