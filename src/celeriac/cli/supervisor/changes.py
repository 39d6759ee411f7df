"""Noticing that Python files below the working directory have changed, for `celeriac dev`.

A thread waits for the file system (watchfiles, debounced) and posts one Changed per burst. Hidden
folders, virtual environments, caches and the home folder do not count.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEBOUNCE_MILLISECONDS = 400


@dataclass(frozen=True, slots=True)
class Changed:
    """These files changed, as paths below the watched folder; `trouble` says why nobody watches any more."""

    paths: tuple[str, ...] = ()
    trouble: str = ""

    def __str__(self) -> str:
        """Name the files, at most three of them."""
        more = len(self.paths) - 3
        return ", ".join(self.paths[:3]) + (f" and {more} more" if more > 0 else "") + " changed"


class Changes:
    """Watches a folder until `close`."""

    def __init__(self, folder: Path, home: Path, post: Callable[[Changed], None]) -> None:
        self._folder = folder
        self._home = home
        self._post = post
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="changes", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        from watchfiles import PythonFilter, watch  # `demo` does without

        counts = PythonFilter(ignore_paths=[self._home.absolute()])
        try:
            for changes in watch(
                self._folder, watch_filter=counts, debounce=DEBOUNCE_MILLISECONDS, step=DEBOUNCE_MILLISECONDS // 4,
                stop_event=self._closed, raise_interrupt=False, ignore_permission_denied=True,
            ):  # fmt: skip
                paths = {Path(path) for _, path in changes}
                self._post(Changed(tuple(sorted(str(path.relative_to(self._folder)) for path in paths))))
        except OSError as error:  # too many files for the kernel's limit
            self._post(Changed(trouble=str(error)))
