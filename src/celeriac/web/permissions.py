"""What each route asks for: the one table, which `auth.guard` enforces by construction.

The application cannot be built with a route that is missing here. The tests try every line
with every role and with nobody.
"""

from celeriac.access import Permission

PERMISSIONS: dict[tuple[str, str], Permission] = {
    ("POST", "/api/v1/jobs"): Permission.JOBS_SUBMIT,
    ("POST", "/api/v1/jobs/batch"): Permission.JOBS_SUBMIT,
    ("POST", "/api/v1/tasks/{task}/jobs"): Permission.JOBS_SUBMIT,
    ("GET", "/api/v1/batches/{id}"): Permission.JOBS_READ,
    ("GET", "/api/v1/jobs"): Permission.JOBS_READ,
    ("GET", "/api/v1/jobs/{id}"): Permission.JOBS_READ,
    ("GET", "/api/v1/jobs/{id}/events"): Permission.JOBS_READ,
    ("PUT", "/api/v1/jobs/{id}/cancellation"): Permission.JOBS_CONTROL,
    ("POST", "/api/v1/jobs/{id}/retries"): Permission.JOBS_CONTROL,
    ("POST", "/api/v1/cancellations"): Permission.JOBS_CONTROL,
    ("POST", "/api/v1/retries"): Permission.JOBS_CONTROL,
    ("GET", "/api/v1/operations"): Permission.JOBS_READ,
    ("GET", "/api/v1/operations/{id}"): Permission.JOBS_READ,
    ("GET", "/api/v1/queues"): Permission.SYSTEM_READ,
    ("GET", "/api/v1/queues/{name}"): Permission.SYSTEM_READ,
    ("PUT", "/api/v1/queues/{name}/pause"): Permission.QUEUES_CONTROL,
    ("DELETE", "/api/v1/queues/{name}/pause"): Permission.QUEUES_CONTROL,
    ("GET", "/api/v1/stats"): Permission.SYSTEM_READ,
    ("GET", "/api/v1/tokens"): Permission.TOKENS,
    ("POST", "/api/v1/tokens"): Permission.TOKENS,
    ("DELETE", "/api/v1/tokens/{id}"): Permission.TOKENS,
    ("DELETE", "/api/v1/sessions/{owner}"): Permission.TOKENS,
    ("GET", "/api/v1/workers"): Permission.SYSTEM_READ,
    ("GET", "/api/v1/tasks"): Permission.SYSTEM_READ,
    ("GET", "/healthz"): Permission.PUBLIC,
    ("GET", "/readyz"): Permission.PUBLIC,
    ("GET", "/metrics"): Permission.SYSTEM_READ,
    ("GET", "/openapi.json"): Permission.PUBLIC,
    ("GET", "/docs"): Permission.PUBLIC,
    ("GET", "/login"): Permission.PUBLIC,
    ("POST", "/logout"): Permission.PUBLIC,
    ("GET", "/"): Permission.PUBLIC,
    ("GET", "/static/{path}"): Permission.PUBLIC,
    ("GET", "/demo/{path}"): Permission.PUBLIC,
}
# With CELERIAC_METRICS, for a Prometheus that has no token.
OPEN_METRICS = {("GET", "/metrics"): Permission.PUBLIC}
