"""What every long-running command says when it starts."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_variable_that_nobody_reads_is_told_at_the_start_with_the_nearest_that_somebody_does(tmp_path: Path):
    environment = {**os.environ, "CELERIAC_LEASE_SECOND": "5", "CELERIAC_JOB_DAYS": "5", "CELERIAC_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "celeriac", "keeper"]
    started = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    assert started.returncode == 2  # there is no database here
    assert "CELERIAC_LEASE_SECOND is set, and nobody reads it. Is CELERIAC_LEASE_SECONDS meant?" in started.stderr
    assert "CELERIAC_JOB_DAYS" not in started.stderr
