"""For people's own tests: jobs that run inline, and a real instance to talk to.

`inline(app)` runs what the app submits in the test's own process, on a ledger of its own; `instance(app)`
starts the real processes in a folder of their own. `plugin` makes pytest fixtures of both.
`docs/tour.md` follows one job through the files.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.testing.jobs import Jobs, Seen, inline
    from celeriac.testing.server import instance

__all__ = ["Jobs", "Seen", "inline", "instance"]


def __getattr__(name: str) -> Any:
    # pytest loads the plugin in every session, also in those that have no use for Celery and a database.
    if name not in __all__:
        raise AttributeError(f"module 'celeriac.testing' has no attribute {name!r}")
    import importlib

    home = "server" if name == "instance" else "jobs"
    return getattr(importlib.import_module(f"celeriac.testing.{home}"), name)
