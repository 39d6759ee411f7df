"""One frozen Settings: every knob, from `CELERIAC_*` variables or `celeriac.toml`.

The environment wins over the file, a command's own flags win over both. A wrong value
stops the process with a sentence that names the variable. `docs/settings.md` lists them
all, and a test fails when one is missing there.
"""

import os
import re
import tomllib
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from celeriac.errors import CannotStart

_POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")
BROKERS = ("amqp://", "amqps://", "redis://", "rediss://")
# Variables that are read elsewhere: by clients, the supervisor's children, and tests.
BESIDE = ("url", "token", "lifeline", "failpoint", "require_services")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECRETS = [
    "*password*", "*passwd*", "*passphrase*", "*secret*", "*token*", "*api_key*", "*private_key*", "*access_key*",
    "authorization", "credential*",
]  # fmt: skip


class Settings(BaseSettings):
    """What one instance is told; relative paths count from the working directory."""

    model_config = SettingsConfigDict(
        env_prefix="CELERIAC_", toml_file="celeriac.toml", frozen=True, extra="ignore", env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="Address the web process listens on.")
    port: int = Field(8787, ge=0, le=65535, description="Port the web process listens on; 0 picks a free one.")
    home: Path = Field(Path(".celeriac"), description="Folder of the embedded shape: database, token, sockets, logs.")
    database_url: str = Field(
        "", description="URL of the ledger, sqlite:///… or postgresql://…; empty means a file in the home folder."
    )
    database_direct_url: str = Field(
        "",
        description="URL of the Postgres server itself, when database_url leads to a pgbouncer, which cannot listen.",
    )
    broker_url: str = Field(
        "", description="URL of a RabbitMQ or Redis that carries hints of work; empty means the ledger does it alone."
    )
    broker_management_url: str = Field(
        "",
        description="URL of RabbitMQ's management API, for `celeriac check`; empty: port 15672 of the broker's host.",
    )
    window: int = Field(1000, ge=1, le=100_000, description="So many hints at most lie in each queue of the broker.")
    max_waiting: int = Field(
        10_000_000, ge=1, description="With so many jobs queued or scheduled, submits are refused until some have run."
    )
    files_url: str = Field("", description="Reserved for result files.")
    app: str = Field("", description="The Celery app to serve, as `module:attribute`.")
    secret_key: str = Field("", description="Reserved for links that are signed; sessions need no key.")
    allowed_hosts: list[str] = Field(
        default_factory=list, description="Host names the server answers to beside loopback names, as a JSON list."
    )
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Largest request body, in bytes.")
    max_result_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest result of a task, as JSON in bytes; a larger one fails its job."
    )
    redact: list[str] = Field(
        default_factory=SECRETS.copy,
        description="Arguments whose values are never shown: a JSON list of shell patterns on their names.",
    )
    metrics: bool = Field(False, description="Whether /metrics answers without a token.")
    session_hours: float = Field(12, gt=0, description="How long a login in the browser lasts, in hours.")
    beat_seconds: float = Field(2, gt=0, description="How often a worker and a keeper raise their counters.")
    lease_seconds: float = Field(10, gt=0, description="A worker whose counter stood still this long is dead.")
    leader_seconds: float = Field(
        6, gt=0, description="A leading keeper whose counter stood still this long is replaced."
    )
    max_deaths: int = Field(3, ge=1, description="A job that lost this many workers while running is quarantined.")
    cancel_grace_seconds: float = Field(3, gt=0, description="Time a cancelled task gets at each step of the ladder.")
    shutdown_seconds: float = Field(30, gt=0, description="Time running jobs get to end when a worker is told to stop.")
    stuck_seconds: float = Field(
        60, ge=0, description="A worker that does nothing for so long though it could is reported as stuck; 0 is never."
    )
    stuck_exit_seconds: float = Field(
        300, ge=0, description="A worker stuck for so long ends with exit code 75, to be started anew; 0 is never."
    )
    alive_file: str = Field(
        "", description="File that a worker or keeper touches while it works, for probes that can only run a command."
    )
    drain_seconds: float = Field(
        3, ge=0, description="Time a web process that is told to stop still serves, being not ready any more."
    )
    job_days: float = Field(30, gt=0, description="Jobs that ended this many days ago are pruned.")
    event_days: float = Field(7, gt=0, description="Events of jobs that ended this many days ago are pruned.")
    observed_days: float = Field(
        3, gt=0, description="An observed job that no worker was seen with for so many days ends as `not-delivered`."
    )
    log_level: str = Field("INFO", description="How much the processes log: DEBUG, INFO, WARNING, ERROR.")

    @model_validator(mode="after")
    def _only_what_is_there(self) -> "Settings":
        if self.database_url and not self.database_url.startswith(("sqlite:///", *_POSTGRES)):
            raise ValueError("CELERIAC_DATABASE_URL must begin with sqlite:/// or postgresql://")
        if self.database_direct_url and not (
            self.database_url.startswith(_POSTGRES) and self.database_direct_url.startswith(_POSTGRES)
        ):
            raise ValueError(
                "CELERIAC_DATABASE_DIRECT_URL goes with a CELERIAC_DATABASE_URL of Postgres, and is one too"
            )
        if self.files_url:
            raise ValueError("CELERIAC_FILES_URL is not used in this version; leave it empty")
        return self

    @model_validator(mode="after")
    def _broker_that_is_known(self) -> "Settings":
        if self.broker_url and not self.broker_url.startswith(BROKERS):
            raise ValueError(
                "CELERIAC_BROKER_URL must begin with amqp://, amqps://, redis:// or rediss://, or be left empty"
            )
        try:
            urlsplit(self.broker_url).port  # noqa: B018 - looking at it checks it
        except ValueError:
            raise ValueError("CELERIAC_BROKER_URL is no URL: the port is a number from 0 to 65535") from None
        return self

    @model_validator(mode="after")
    def _leases_outlast_beats(self) -> "Settings":
        for name in ("lease_seconds", "leader_seconds"):
            if getattr(self, name) < 3 * self.beat_seconds:
                raise ValueError(
                    f"CELERIAC_{name.upper()} is {getattr(self, name):g}, less than three times CELERIAC_BEAT_SECONDS "
                    f"({self.beat_seconds:g}): a process that is only slow would be taken for dead"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags first, then the environment, then `celeriac.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @cached_property
    def ledger_url(self) -> str:
        """The SQLAlchemy URL of the ledger, with the SQLite default filled in."""
        scheme, _, rest = self.database_url.partition("://")
        if f"{scheme}://" not in _POSTGRES:
            return self.database_url or f"sqlite:///{self.home.absolute() / 'ledger.db'}"
        # A pgbouncer is in between: nothing may be prepared there (dialects/postgres.py).
        prepared = f"{'&' if '?' in rest else '?'}prepare_threshold=0" if self.database_direct_url else ""
        return f"postgresql+psycopg://{rest}{prepared}"

    @property
    def announcements_url(self) -> str:
        """Where announcements go: the file of SQLite, or the Postgres server itself."""
        if not self.ledger_url.startswith("postgresql"):
            return self.ledger_url
        return "postgresql://" + (self.database_direct_url or self.database_url).partition("://")[2]

    @property
    def token_path(self) -> Path:
        """Where `dev` and `demo` write their token (mode 0600)."""
        return self.home / "token"

    def show_life(self) -> None:
        """Touch the `alive_file`, if there is to be one."""
        if self.alive_file:
            Path(self.alive_file).touch()

    def environment(self) -> dict[str, str]:
        """Return the variables that make a child process read these same settings."""
        values = {f"CELERIAC_{name.upper()}": value for name, value in self.model_dump(mode="json").items()}
        return {name: _as_text(value) for name, value in values.items() if value not in ("", None)}


def load(**flags: Any) -> Settings:
    """Return the settings; flags that are None count as not given.

    Raises:
        CannotStart: with one line per wrong value, naming the variable.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except tomllib.TOMLDecodeError as error:
        raise CannotStart(f"Wrong settings. celeriac.toml is not TOML: {error}.") from None
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"CELERIAC_{field[1].upper()}" if field else str(error)
        raise CannotStart(f'Wrong settings. {name} is not a JSON list, as in ["a.example"].') from None
    except ValidationError as error:
        raise CannotStart("Wrong settings. " + "; ".join(_told(fault) for fault in error.errors())) from None


def unknown_variables() -> dict[str, str]:
    """Return the CELERIAC_* variables that nobody reads, each with the known name nearest to it, or ""."""
    ours = "CELERIAC_"
    known = [name.upper() for name in (*Settings.model_fields, *BESIDE)]
    given = sorted(name.removeprefix(ours) for name in os.environ if name.startswith(ours))
    # Compared without what all have in common: it alone would make any two of them alike.
    nearest = {name: get_close_matches(name.upper(), known, 1) for name in given if name.upper() not in known}
    return {f"{ours}{name}": f"{ours}{found[0]}" if found else "" for name, found in nearest.items()}


def prepare_home(home: Path) -> Path:
    """Make the home folder if needed, closed to others (0700), and return it.

    Raises:
        CannotStart: when it cannot be made or written.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.is_symlink():
            raise CannotStart(f"{home} is a symbolic link. Point CELERIAC_HOME at a real folder.")
        home.chmod(0o700)
    except OSError as error:
        raise CannotStart(
            f"The folder {home} cannot be used: {error.strerror}. Make it writable, or set CELERIAC_HOME to another."
        ) from None
    if not os.access(home, os.W_OK | os.X_OK):
        raise CannotStart(f"The folder {home} is not writable. Make it writable, or set CELERIAC_HOME to another.")
    return home


# What pydantic calls a fault, and how we say it; `{input}` is what was given.
_WORDS = {
    "int_parsing": "{input!r} is not a whole number",
    "float_parsing": "{input!r} is not a number",
    "bool_parsing": "{input!r} is neither true nor false",
    "greater_than": "{input} is too small; it must be more than {gt:g}",
    "greater_than_equal": "{input} is too small; the least is {ge:,g}",
    "less_than_equal": "{input} is too large; the most is {le:,g}",
}


def _told(fault: Any) -> str:
    variable = "_".join(str(part) for part in fault["loc"]).upper()
    words = _WORDS.get(fault["type"])
    message = (
        words.format(input=fault["input"], **fault.get("ctx", {}))
        if words
        else str(fault["msg"]).removeprefix("Value error, ")
    )
    return f"CELERIAC_{variable}: {message}" if variable else message


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return "[" + ",".join(f'"{item}"' for item in value) + "]"
    return str(value)
