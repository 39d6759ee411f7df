"""Principal, permissions and roles.

A role is a name for a set of permissions; a route declares one permission. Without
`jobs.read-all` and `jobs.control-all` a principal sees and moves only its own jobs, and
somebody else's job looks exactly like one that does not exist.
"""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Permission(StrEnum):
    """What a route can ask for."""

    PUBLIC = "public"  # nothing: health only
    JOBS_READ = "jobs.read"
    JOBS_READ_ALL = "jobs.read-all"
    JOBS_SUBMIT = "jobs.submit"
    JOBS_CONTROL = "jobs.control"
    JOBS_CONTROL_ALL = "jobs.control-all"
    SYSTEM_READ = "system.read"  # queues, workers, tasks, stats, metrics
    QUEUES_CONTROL = "queues.control"  # pause and resume
    TOKENS = "tokens"


class Role(StrEnum):
    """Names for sets of permissions, as tokens carry them."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"
    ADMIN = "admin"


_VIEWER = frozenset({Permission.JOBS_READ, Permission.JOBS_READ_ALL, Permission.SYSTEM_READ})
_SUBMITTER = frozenset({Permission.JOBS_READ, Permission.JOBS_SUBMIT, Permission.JOBS_CONTROL, Permission.SYSTEM_READ})
PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEWER,
    Role.SUBMITTER: _SUBMITTER,
    Role.OPERATOR: _VIEWER | _SUBMITTER | {Permission.JOBS_CONTROL_ALL, Permission.QUEUES_CONTROL},
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody on whose behalf the ledger is read or moved."""

    owner: str
    permissions: frozenset[Permission]
    tasks: tuple[str, ...] = ()  # shell patterns of the only tasks it may submit and retry; empty: all

    def may(self, permission: Permission) -> bool:
        """Say whether this principal carries the permission."""
        return permission is Permission.PUBLIC or permission in self.permissions

    def sees(self, owner: str) -> bool:
        """Say whether jobs of this owner are visible."""
        return owner == self.owner or Permission.JOBS_READ_ALL in self.permissions

    def controls(self, owner: str) -> bool:
        """Say whether jobs of this owner may be cancelled and retried."""
        return owner == self.owner or Permission.JOBS_CONTROL_ALL in self.permissions

    def may_run(self, task: str) -> bool:
        """Say whether it may submit and retry jobs of this task."""
        return not self.tasks or any(fnmatchcase(task, pattern) for pattern in self.tasks)


# Celeriac itself and task code that submits from inside a job.
SYSTEM = Principal("system", frozenset(Permission))
