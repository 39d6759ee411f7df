"""The web process: the HTTP API, its documentation, the login, and the page a demo brings along.

`create_app` builds the ASGI application, `serve` runs it. A handler reads input, makes one
call to the ledger and shapes the answer; it never talks to a broker.
`docs/tour.md` follows one job through the files.
"""

from celeriac.web.app import create_app
from celeriac.web.server import serve

__all__ = ["create_app", "serve"]
