"""The app whose tasks the tests of the web process submit; no worker ever runs them here."""

from typing import Any

from celeriac import Celeriac
from web.alone import finalize_alone

app = Celeriac("web-tests")


@app.task(name="echo")
def echo(value: Any = None) -> Any:
    """Give back the value."""
    return value


@app.task(name="add")
def add(x: int, y: int = 1) -> int:
    """Add two numbers."""
    return x + y


@app.task(name="measured", cost=lambda text: len(text), queues={10: "small", None: "large"})
def measured(text: str) -> int:
    """Count characters."""
    return len(text)


@app.task(name="listed")
def listed(*numbers: Any) -> int:
    """Take any number of values."""
    return len(numbers)


@app.task(name="limited", time_limit=60, soft_time_limit=50)
def limited() -> None:
    """Take at most a minute."""


finalize_alone(app)  # before anybody asks for its tasks
