"""The HTTP API below /api/v1: one module per noun, each with `routes(site)`.

Handlers read input, make one call to the ledger and shape the answer. Errors are raised and
become problems in `web/front.py`; who may call what is in `web/permissions.py`.
"""

PREFIX = "/api/v1"
