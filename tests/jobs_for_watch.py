"""The tasks of the tests in a worker that has lost its consumer, and whose node nobody feeds any more."""

from jobs_for_tests import app as app

from celeriac.worker.node import Node

Node.fetch = lambda self: None  # type: ignore[method-assign]
