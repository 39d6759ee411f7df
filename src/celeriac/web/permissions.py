"""What each route asks for: the one table, which `auth.guard` enforces by construction.

The application cannot be built with a route that is missing here. The tests try every line
with every role and with nobody.
"""

from celeriac.access import Permission

PERMISSIONS: dict[tuple[str, str], Permission] = {
    ("POST", "/api/v1/jobs"): Permission.JOBS_SUBMIT,
    ("GET", "/api/v1/jobs"): Permission.JOBS_READ,
    ("GET", "/api/v1/jobs/{id}"): Permission.JOBS_READ,
    ("GET", "/api/v1/jobs/{id}/events"): Permission.JOBS_READ,
    ("PUT", "/api/v1/jobs/{id}/cancellation"): Permission.JOBS_CONTROL,
    ("POST", "/api/v1/jobs/{id}/retries"): Permission.JOBS_CONTROL,
    ("GET", "/api/v1/queues"): Permission.SYSTEM_READ,
    ("GET", "/api/v1/workers"): Permission.SYSTEM_READ,
    ("GET", "/api/v1/tasks"): Permission.SYSTEM_READ,
    ("GET", "/healthz"): Permission.PUBLIC,
    ("GET", "/readyz"): Permission.PUBLIC,
    ("GET", "/openapi.json"): Permission.PUBLIC,
    ("GET", "/docs"): Permission.PUBLIC,
    ("GET", "/login"): Permission.PUBLIC,
    ("POST", "/logout"): Permission.PUBLIC,
    ("GET", "/"): Permission.PUBLIC,
    ("GET", "/static/{path}"): Permission.PUBLIC,
    ("GET", "/demo/{path}"): Permission.PUBLIC,
}
