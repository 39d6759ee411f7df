"""What is told live: the hub of a web process, which wakes whoever waits for a job.

It hears the announcements of every process of the instance, and looks at the ledger anyway,
since an announcement may be lost.
`docs/tour.md` follows one job through the files.
"""

from celeriac.stream.hub import Hub

__all__ = ["Hub"]
