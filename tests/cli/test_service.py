"""What every long-running command says when it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.terminal import run


def test_a_variable_that_nobody_reads_is_told_at_the_start_with_the_nearest_that_somebody_does(tmp_path: Path):
    environment = {**os.environ, "CELERIAC_LEASE_SECOND": "5", "CELERIAC_JOB_DAYS": "5", "CELERIAC_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "celeriac", "keeper"]
    started = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    assert started.returncode == 2  # there is no database here
    assert "CELERIAC_LEASE_SECOND is set, and nobody reads it. Is CELERIAC_LEASE_SECONDS meant?" in started.stderr
    assert "CELERIAC_JOB_DAYS" not in started.stderr


@pytest.mark.parametrize("words", ["web", "worker", "keeper", "token list", "migrate", "migrate --check"])
def test_a_database_that_is_away_means_that_it_cannot_start(tmp_path: Path, words: str):
    away = {"DATABASE_URL": "postgresql://celeriac@127.0.0.1:1/celeriac", "APP": "celeriac.demo.tasks:app"}
    result = run(tmp_path, *words.split(), **{f"CELERIAC_{name}": value for name, value in away.items()})

    assert result.returncode == 2, result.stderr
    assert "celeriac: The ledger cannot be used now: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", ["keeper", "token list"])
def test_an_empty_database_means_that_it_cannot_start(tmp_path: Path, words: str):
    (tmp_path / ".celeriac").mkdir(mode=0o700)
    (tmp_path / ".celeriac" / "ledger.db").touch()

    assert run(tmp_path, *words.split()).returncode == 2
