"""The databases a ledger may be on, and marks for tests of what only one of them does."""

import pytest

_postgres = pytest.param("postgres", marks=pytest.mark.postgres)
DATABASES = ["sqlite", _postgres]
on_sqlite = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("ledger_url", [_postgres], indirect=True)
