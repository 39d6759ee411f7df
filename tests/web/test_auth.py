"""Who may do what: every route with every role, tokens, sessions, other sites, foreign hosts."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celeriac import clock
from celeriac.access import Permission, Role
from celeriac.access.principals import PERMISSIONS as ROLES
from celeriac.errors import CannotStart, CeleriacError, LedgerUnavailable
from celeriac.ledger import keys
from celeriac.settings import load
from celeriac.web import create_app
from celeriac.web.auth import Auth, guard, places
from celeriac.web.permissions import PERMISSIONS
from celeriac.web.sessions import Sessions
from celeriac.web.site import Site
from web.house import House, unique
from web.tasks_for_web import app

JOBS = "/api/v1/jobs"


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "index.html").write_text("<h1>Demo</h1>")
    return folder


# Permissions


def test_every_route_declares_a_permission_and_every_permission_has_a_route(pages: Path, tmp_path: Path):
    application = create_app(load(home=tmp_path), app, pages)

    assert {place for route in application.router.routes for place in places(route)} == set(PERMISSIONS)


def test_an_application_with_an_undeclared_route_cannot_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(PERMISSIONS, ("GET", "/api/v1/queues"))

    with pytest.raises(CeleriacError, match="GET /api/v1/queues declares no permission"):
        create_app(load(home=tmp_path), app)


def test_a_method_without_a_permission_of_its_own_cannot_be_added(tmp_path: Path):
    async def endpoint(request: Request) -> Response:
        return Response()

    auth = Auth(Site(load(home=tmp_path), app))
    with pytest.raises(CeleriacError, match="DELETE /api/v1/queues declares no permission"):
        guard([Route("/api/v1/queues", endpoint, methods=["GET", "DELETE"])], PERMISSIONS, auth)


ROUTES = [place for place in PERMISSIONS if "{path}" not in place[1]]


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize("place", ROUTES, ids=" ".join)
def test_a_route_lets_in_exactly_who_carries_its_permission(shared: House, place: tuple[str, str], role: Role | None):
    method, path = place
    permission = PERMISSIONS[place]
    path = path.replace("{id}", "nothing").replace("{name}", "matrix")
    response = shared.client("matrix", role).request(method, path)

    if permission is Permission.PUBLIC:
        assert response.status_code in (200, 303, 403)  # 403: a login without a ticket
        assert response.headers.get("Content-Type") != "application/problem+json"
    elif role is None:
        assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    elif permission in ROLES[role]:
        assert response.status_code in (200, 404, 415)
    else:
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert permission in response.json()["detail"]


# Tokens


@pytest.mark.parametrize(
    "value",
    ["Bearer nonsense", "Bearer", "Bearer ", "Basic YTpi", "nonsense", "Bearer cel_" + "x" * 5000, "Bearer \xff"],
)
def test_a_wrong_token_is_refused(shared: House, value: str):
    response = shared.client(role=None).get(JOBS, headers={"Authorization": value.encode("latin-1").strip()})  # type: ignore[dict-item]

    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


def test_a_revoked_token_is_refused_within_a_second(own: House, monkeypatch: pytest.MonkeyPatch):
    client = own.client("bob")
    assert client.get(JOBS).status_code == 200
    [token] = [token for token in keys.all_tokens(own.ledger) if token.owner == "bob"]
    keys.revoke_token(own.ledger, token.id)
    real = time.monotonic
    monkeypatch.setattr(clock, "monotonic", lambda: real() + 1)

    assert client.get(JOBS).status_code == 401


def test_an_expired_token_is_refused(shared: House):
    secret = keys.create_token(shared.ledger, unique("old"), "ann", Role.ADMIN, clock.micros() - 1)

    assert shared.client(role=None).get(JOBS, headers={"Authorization": f"Bearer {secret}"}).status_code == 401


# Sessions


@contextlib.contextmanager
def browser(house: House, role: Role = Role.OPERATOR, owner: str = "ann") -> Iterator[httpx.Client]:
    """A browser that has opened a login link."""
    with httpx.Client(base_url=house.url, trust_env=False) as client:
        ticket = keys.create_ticket(house.ledger, owner, role)
        response = client.get("/login", params={"ticket": ticket})
        assert (response.status_code, response.headers["Location"]) == (303, "/")
        yield client


def test_a_ticket_opens_a_session_once(shared: House):
    ticket = keys.create_ticket(shared.ledger, "ann", Role.VIEWER)
    first = httpx.get(f"{shared.url}/login?ticket={ticket}", trust_env=False)
    second = httpx.get(f"{shared.url}/login?ticket={ticket}", trust_env=False)

    cookie = first.headers["Set-Cookie"]
    assert first.status_code == 303
    assert re.match(r"celeriac_[0-9a-f]{8}=[\w.-]+; HttpOnly; Max-Age=43200; Path=/; SameSite=strict$", cookie), cookie
    assert (second.status_code, "Set-Cookie" in second.headers) == (403, False)
    assert "used before" in second.text
    assert second.headers["Content-Type"].startswith("text/html")


def test_the_cookie_of_a_secure_site_is_secure(shared: House):
    ticket = keys.create_ticket(shared.ledger, "ann", Role.VIEWER)
    headers = {"X-Forwarded-Proto": "https"}  # as a proxy on this machine says

    assert (
        "; Secure"
        in httpx.get(f"{shared.url}/login?ticket={ticket}", headers=headers, trust_env=False).headers["Set-Cookie"]
    )


@pytest.mark.parametrize("query", ["", "?ticket=", "?ticket=nonsense", "?ticket=%00", "?tocket=x"])
def test_a_wrong_ticket_gets_a_page_that_helps(shared: House, query: str):
    response = httpx.get(f"{shared.url}/login{query}", trust_env=False)

    assert (response.status_code, "celeriac token login" in response.text) == (403, True)


def test_a_ticket_that_opens_nothing_does_not_tell_why(shared: House, own: House):
    used = keys.create_ticket(shared.ledger, "ann", Role.ADMIN)
    old = keys.create_ticket(shared.ledger, "ann", Role.ADMIN, seconds=-1)
    elsewhere = keys.create_ticket(own.ledger, "ann", Role.ADMIN)
    assert keys.use_ticket(shared.ledger, used)

    tickets = (used, old, elsewhere, shared.token(), "nonsense", "x" * 5000)
    answers = [httpx.get(f"{shared.url}/login?ticket={ticket}", trust_env=False) for ticket in tickets]

    assert {(answer.status_code, answer.text) for answer in answers} == {(403, answers[0].text)}
    assert all("Set-Cookie" not in answer.headers for answer in answers)


def test_a_login_never_takes_over_a_cookie_that_was_there_before(shared: House):
    name = Sessions(shared.settings).name
    with browser(shared, Role.VIEWER, "mallory") as attacker, httpx.Client(base_url=shared.url, trust_env=False) as ann:
        planted = attacker.cookies[name]
        ann.cookies.set(name, planted, domain="127.0.0.1", path="/")
        ann.get("/login", params={"ticket": keys.create_ticket(shared.ledger, "ann", Role.SUBMITTER)})
        [mine] = [cookie.value for cookie in ann.cookies.jar]
        job = ann.post(JOBS, json={"task": "echo"}, headers={"Origin": shared.url}).json()

    assert mine != planted
    assert job["owner"] == "ann"


def test_a_session_carries_owner_and_role(shared: House):
    with browser(shared, Role.SUBMITTER, "carol") as client:
        job = client.post(JOBS, json={"task": "echo"}, headers={"Origin": shared.url}).json()
        ann = shared.submit(owner="ann")["id"]

        assert job["owner"] == "carol"
        assert client.get(f"{JOBS}/{ann}").status_code == 404


def test_a_logout_ends_the_session_in_the_browser(shared: House):
    with browser(shared) as client:
        assert client.get(JOBS).status_code == 200
        assert client.post("/logout", headers={"Origin": shared.url}).status_code == 303
        assert client.get(JOBS).status_code == 401


def test_a_copy_of_the_cookie_opens_nothing_after_the_logout(shared: House):
    with browser(shared) as client, httpx.Client(base_url=shared.url, trust_env=False) as thief:
        thief.cookies.update(client.cookies)
        assert thief.get(JOBS).status_code == 200
        client.post("/logout", headers={"Origin": shared.url})

        assert (thief.get(JOBS).status_code, thief.get(JOBS).json()["detail"]) == (
            401,
            "The session is over. Log in again.",
        )


def test_a_logout_elsewhere_is_known_within_a_second(shared: House, monkeypatch: pytest.MonkeyPatch):
    with browser(shared) as client:
        assert client.get(JOBS).status_code == 200
        [secret] = client.cookies.values()
        keys.end_session(shared.ledger, secret)  # as another web process does
        real = time.monotonic
        monkeypatch.setattr(clock, "monotonic", lambda: real() + 1)

        assert client.get(JOBS).status_code == 401


def test_all_sessions_of_an_owner_are_ended_and_nobody_elses(shared: House, monkeypatch: pytest.MonkeyPatch):
    owner = unique("dora")
    with browser(shared, owner=owner) as one, browser(shared, owner=owner) as two, browser(shared) as other:
        answer = shared.client().delete(f"/api/v1/sessions/{owner}")
        assert (answer.status_code, answer.json()) == (200, {"owner": owner, "ended": 2})

        assert [client.get(JOBS).status_code for client in (one, two, other)] == [401, 401, 200]
    assert shared.client().delete(f"/api/v1/sessions/{owner}").json()["ended"] == 0


@pytest.mark.parametrize("owner", ["%00", "x" * 300, "%ED%A0%80"])
def test_an_owner_that_cannot_be_has_no_sessions(shared: House, owner: str):
    response = shared.client().delete(f"/api/v1/sessions/{owner}")

    assert (response.status_code, response.json()["ended"]) == (200, 0)


def test_a_logout_that_could_not_be_written_says_so(own: House, monkeypatch: pytest.MonkeyPatch):
    def away(*_: object) -> None:
        raise LedgerUnavailable("The disk is gone.")

    with browser(own) as client:
        monkeypatch.setattr(keys, "end_session", away)
        response = client.post("/logout", headers={"Origin": own.url})

        assert (response.status_code, "still logged in" in response.text) == (503, True)
        assert client.get(JOBS).status_code == 200


def test_pages_show_the_way_out_to_who_is_in(shared: House):
    with browser(shared) as client:
        for path in ("/", "/docs"):
            assert 'action="/logout"' in client.get(path).text
            assert 'action="/logout"' not in shared.client(role=None).get(path).text
        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": shared.url}
        out = client.post("/logout", headers=form)  # as a browser without Sec-Fetch-Site sends the button's form

    assert (out.status_code, out.headers["Location"]) == (303, "/")
    assert re.search(r'="?"?; .*HttpOnly; Max-Age=0; Path=/; SameSite=strict', out.headers["Set-Cookie"])


def test_a_session_is_over_after_its_time(shared: House, monkeypatch: pytest.MonkeyPatch):
    with browser(shared) as client:
        later = clock.micros() + 13 * 3600 * 1_000_000
        monkeypatch.setattr(clock, "micros", lambda moment=None: later)
        response = client.get(JOBS)
        assert (response.status_code, response.json()["detail"]) == (401, "The session is over. Log in again.")


@pytest.mark.parametrize("cookie", ["", "x", "a.b", "WzEsMl0.x", '"\\"', "\xff"])
def test_a_forged_cookie_is_refused(shared: House, cookie: str):
    headers = {"Cookie": f"other=1; {Sessions(shared.settings).name}={cookie}".encode("latin-1")}

    assert httpx.get(f"{shared.url}{JOBS}", headers=headers, trust_env=False).status_code == 401  # type: ignore[arg-type]


def test_a_cookie_of_another_instance_is_refused(shared: House, own: House):
    with browser(own) as client:
        [value] = client.cookies.values()
        cookie = f"{Sessions(shared.settings).name}={value}"

    assert httpx.get(f"{shared.url}{JOBS}", headers={"Cookie": cookie}, trust_env=False).status_code == 401


# Other sites


FROM = [
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, True),  # browsers never send this pair
    ({"Origin": "{url}"}, True),
    ({}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, False),
    ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, False),
    ({"Sec-Fetch-Site": "none"}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "http://127.0.0.1:1"}, False),
    ({"Origin": "{url}.evil.example"}, False),
    ({"Origin": "http://evil.example@127.0.0.1"}, False),
]


@pytest.mark.parametrize(("headers", "ours"), FROM)
def test_a_change_with_a_cookie_must_come_from_our_own_page(shared: House, headers: dict[str, str], ours: bool):
    headers = {name: value.replace("{url}", shared.url) for name, value in headers.items()}
    with browser(shared) as client:
        submitted = client.post(JOBS, json={"task": "echo"}, headers=headers)
        out = client.post("/logout", headers=headers)

    assert (submitted.status_code, out.status_code) == ((202, 303) if ours else (403, 403))
    assert ours or submitted.json()["code"] == "cross-site"


CHANGES = [place for place in PERMISSIONS if place[0] != "GET"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
@pytest.mark.parametrize("place", CHANGES, ids=" ".join)
def test_no_change_can_be_asked_for_by_a_form_on_another_site(
    shared: House, place: tuple[str, str], origin: str | None
):
    method, path = place
    path = re.sub(r"\{\w+\}", "nothing", path)
    headers = {"Content-Type": "application/x-www-form-urlencoded", **({"Origin": origin} if origin else {})}
    with browser(shared, Role.ADMIN) as client:
        response = client.request(method, path, headers=headers, content=b"task=echo")

    assert (response.status_code, response.json()["code"]) == (403, "cross-site")


def test_a_token_is_no_cookie_and_may_come_from_anywhere(shared: House):
    response = shared.client().post(JOBS, json={"task": "echo"}, headers={"Origin": "http://evil.example"})

    assert response.status_code == 202
    assert "Access-Control-Allow-Origin" not in response.headers


# Hosts


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST:{port}", "[::1]:{port}", "localhost.", "localhost:1"]
)
def test_loopback_names_are_served(shared: House, host: str):
    assert shared.client().get(JOBS, headers={"Host": host.replace("{port}", str(shared.port))}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[::2]",
        "10.0.0.1",
    ],
)
def test_a_foreign_host_is_refused_whatever_it_asks_for(shared: House, host: str):
    headers = {"Host": host.replace("{port}", str(shared.port))}

    for path in (JOBS, "/", "/docs", "/openapi.json", "/login", "/nowhere"):
        response = shared.client().get(path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (421, "host-not-allowed")
    assert shared.client().get("/healthz", headers=headers).status_code == 200


def test_a_server_that_others_can_reach_wants_to_know_its_name(tmp_path: Path):
    with pytest.raises(CannotStart, match="CELERIAC_ALLOWED_HOSTS"):
        create_app(load(home=tmp_path, host="0.0.0.0"), app)
    assert create_app(load(home=tmp_path, host="0.0.0.0", allowed_hosts=["jobs.example.org"]), app)


# Every answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", JOBS, 200), ("POST", JOBS, 415), ("GET", "/", 200), ("GET", "/nowhere", 404), ("DELETE", JOBS, 405),
        ("GET", "/static/celeriac.css", 200), ("GET", "/static/../app.py", 404), ("GET", "/healthz", 200),
        ("GET", f"{JOBS}/", 404), ("TRACE", JOBS, 405), ("PATCH", f"{JOBS}/x", 405),
    ],
)  # fmt: skip
def test_every_answer_carries_the_security_headers(shared: House, method: str, path: str, status: int):
    response = shared.client().request(method, path)

    assert response.status_code == status
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; frame-ancestors 'none'")
    assert (response.headers["X-Content-Type-Options"], response.headers["Referrer-Policy"]) == (
        "nosniff",
        "same-origin",
    )
    assert "Server" not in response.headers
    if path.startswith("/api/"):
        assert response.headers["Cache-Control"] == "no-store"
    if status >= 400:
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["status"] == status


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "GET" and path != "/login"])
def test_head_answers_like_get_without_the_body(shared: House, path: str):
    path = re.sub(r"\{\w+\}", "nothing", path)
    get, head = shared.client().get(path), shared.client().head(path)

    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/nowhere", "/docs/x", "/demo/nothing.js", "/metrics"])
def test_a_person_gets_a_page_and_a_program_a_problem(shared: House, path: str):
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page, problem = (shared.client(role=None).get(path, headers=headers) for headers in (browser, {}))

    assert page.status_code == problem.status_code
    assert page.headers["Content-Type"].startswith("text/html")
    assert problem.json()["title"] in page.text
    assert shared.client().get("/api/v1/nowhere", headers=browser).json()["code"] == "not-found"


def test_a_page_about_a_problem_shows_what_was_asked_for_as_text(shared: House):
    headers = {"Accept": "text/html", "Host": "<script>alert(1)</script>"}
    response = shared.client(role=None).get("/", headers=headers)

    assert response.status_code == 421
    assert "<script" not in response.text


def test_a_wrong_method_is_told_which_are_right(shared: House):
    assert shared.client().delete(JOBS).headers["Allow"] == "GET, HEAD, POST"
    assert shared.client().put("/api/v1/queues/x").headers["Allow"] == "GET, HEAD"
    assert shared.client().get(f"{JOBS}/x/retries").status_code == 404  # an id may hold slashes
