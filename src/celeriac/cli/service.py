"""What a long-running command does first: hold the lifeline, take its title, say how much it logs.

Called by `web`, `worker`, `keeper`; `dev` and `demo` only take a title. Logs go to stderr, where
a service manager or our supervisor picks them up.
"""

import logging

import setproctitle

from celeriac.cli.supervisor.lifeline import hold_on
from celeriac.errors import CannotStart
from celeriac.settings import Settings, unknown_variables

log = logging.getLogger(__name__)

LINE = "%(asctime)s %(levelname)s %(message)s"


def begin(title: str, settings: Settings) -> None:
    """Make this process a service called `celeriac: <title>`.

    Raises:
        CannotStart: when the log level is not one.
    """
    hold_on()
    take_title(title)
    level = settings.log_level.upper()
    if level not in logging.getLevelNamesMapping():
        raise CannotStart(f"CELERIAC_LOG_LEVEL is {settings.log_level!r}. Use DEBUG, INFO, WARNING or ERROR.")
    logging.basicConfig(level=level, format=LINE)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of every look at the version
    for name, nearest in unknown_variables().items():
        log.warning("%s is set, and nobody reads it.%s", name, f" Is {nearest} meant?" if nearest else "")


def take_title(title: str) -> None:
    """Call this process `celeriac: <title>` in `ps` and `top`."""
    setproctitle.setproctitle(f"celeriac: {title}")
