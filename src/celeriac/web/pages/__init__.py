"""Pages for browsers: the front page, the login, the documentation of the API.

Plain HTML from `templates/`, one stylesheet in `static/`, no script and nothing from elsewhere,
so that the strictest content security policy holds. A demo brings its own front page.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"

_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


def page(template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """Return a page rendered from a template; `logged_in` adds the way out."""
    text = _environment.get_template(template).render({"logged_in": False, **values})
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})
