"""The front without the application behind it: what it does with errors that nobody foresaw."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from celeriac.errors import LedgerUnavailable
from celeriac.web.front import Front
from celeriac.web.metrics import Metrics


def ask(router: ASGIApp) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(Front(router, [], frozenset({"localhost"}), Metrics()))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/api/v1/jobs")

    return asyncio.run(run())


def raising(error: Exception) -> Any:
    async def router(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return router


def test_an_unexpected_error_tells_nothing_but_where_the_log_tells_it(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR):
        response = ask(raising(RuntimeError("the password is swordfish")))
    problem = response.json()

    assert (response.status_code, problem["code"]) == (500, "internal")
    assert "swordfish" not in response.text
    assert problem["id"] in problem["detail"]
    assert problem["id"] in caplog.text
    assert "swordfish" in caplog.text


def test_a_ledger_that_is_away_asks_for_patience():
    response = ask(raising(LedgerUnavailable("The ledger cannot be used now.")))

    assert (response.status_code, response.json()["code"], response.headers["Retry-After"]) == (
        503,
        "ledger-unavailable",
        "1",
    )


def test_an_error_after_the_beginning_of_an_answer_breaks_it_off():
    async def router(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("late")

    with pytest.raises(RuntimeError, match="late"):
        ask(router)
