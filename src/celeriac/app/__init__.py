"""The Celery side of submitting: the app class, the sender behind `.delay()`, the tasks as HTTP knows them.

`application` is what users instantiate, `sender` the hook that sees every message Celery
wants to publish, `tasks` checks arguments against signatures and makes Submissions of them.
`docs/tour.md` follows one job through the files.
"""

from celeriac.app.application import Celeriac, load_app
from celeriac.app.sender import Capture, capture, capturing
from celeriac.app.tasks import JobRequest, TaskInfo, Tasks
from celeriac.instance import connect

__all__ = ["Capture", "Celeriac", "JobRequest", "TaskInfo", "Tasks", "capture", "capturing", "connect", "load_app"]
