"""The supervisor behind `celeriac dev` and `celeriac demo`: web, workers and keeper as child processes.

`plan` says what to run (pure), `home` takes the folder for this instance, `preparation` makes the
database ready in a process of its own, `process` is one child, `supervisor` the loop that starts,
restarts, reloads and stops them; `screen`, `readiness`, `changes` and `lifeline` are its eyes and ears.
"""

from celeriac.cli.supervisor.plan import Node, Plan
from celeriac.cli.supervisor.supervisor import supervise

__all__ = ["Node", "Plan", "supervise"]
