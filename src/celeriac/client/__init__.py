"""Submit, watch and control jobs from another program, over HTTP.

`Client` and `AsyncClient` have the same methods; `submission` makes one job of a batch.
`docs/tour.md` follows one job through the files.
"""

from celeriac.client.calls import ClientError, Unreachable, submission
from celeriac.client.clients import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "ClientError", "Unreachable", "submission"]
