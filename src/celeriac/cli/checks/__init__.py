"""What `celeriac check` looks at, by subject: each look yields what it found, with what to do about it.

A look changes nothing and starts nothing. `LOOKS` holds them all in the order of the report; those of
`database` and `app` need what they are named for, and are left out when it is not there.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from celeriac.cli.checks import app, broker, database, machine, server
from celeriac.settings import Settings

Look: TypeAlias = Callable[[Settings], Iterator[tuple[str, str]]]
LOOKS: dict[str, Look] = {**machine.LOOKS, **database.LOOKS, **server.LOOKS, **app.LOOKS, **broker.LOOKS}

__all__ = ["LOOKS", "Look"]
