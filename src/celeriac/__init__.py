"""Celeriac, the job server for Celery.

`Celeriac` is the app class, `attach` ties an existing Celery app to a ledger, `current` is what
task code talks to. Everything else is reached over HTTP, the command line, or the modules below;
`docs/tour.md` follows one job through them.
"""

from typing import TYPE_CHECKING, Any

from celeriac import current

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.app.attach import attach

__version__ = "0.1.0"
__all__ = ["Celeriac", "__version__", "attach", "current"]


def __getattr__(name: str) -> Any:
    # Celery is loaded by whoever wants an app: the keeper and the command line do without.
    if name == "Celeriac":
        from celeriac.app import Celeriac

        return Celeriac
    if name == "attach":
        from celeriac.app.attach import attach

        return attach
    raise AttributeError(f"module 'celeriac' has no attribute {name!r}")
