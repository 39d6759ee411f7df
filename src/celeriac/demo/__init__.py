"""The demo that ships with Celeriac: five small tasks and one plain web page that submits and watches them.

`celeriac demo` starts `celeriac.demo.tasks:app` and serves the folder PAGE. The tasks are written as any user would
write theirs; nothing here knows how the server works.
`docs/tour.md` follows one job through the files.
"""

from pathlib import Path

PAGE = Path(__file__).with_name("page")
