"""Tasks in the ways people write Celery tasks: classes, hooks, own requests, pydantic, shared, coroutines."""

import asyncio
import os
import time

import celery
from celery import shared_task
from celery.exceptions import Ignore, Reject
from celery.worker.request import Request
from jobs_for_tests import ran
from pydantic import BaseModel

from celeriac import Celeriac

app = Celeriac("idioms")


class Hooked(celery.Task):
    abstract = True

    def before_start(self, task_id, args, kwargs):
        ran(f"before:{task_id}")

    def on_success(self, retval, task_id, args, kwargs):
        ran(f"success:{task_id}")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        ran(f"failure:{task_id}")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        ran(f"retry:{task_id}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        ran(f"after:{task_id}:{status}")


class Noted(Request):
    def on_failure(self, exc_info, *args, **kwargs):
        super().on_failure(exc_info, *args, **kwargs)
        ran(f"noted:{self.id}")


class NotingTask(Hooked):
    abstract = True
    Request = Noted


class ByClass(celery.Task):
    name = "by_class"

    async def run(self, x: int) -> int:
        return x + 1


app.register_task(ByClass())


class Person(BaseModel):
    name: str
    age: int = 1


@app.task(name="greet", pydantic=True)
def greet(person: Person) -> Person:
    return Person(name=person.name.title(), age=person.age + 1)


@shared_task(name="everywhere")
def everywhere() -> str:
    return "here"


@app.task(name="hooked", base=Hooked, bind=True, max_retries=1)
def hooked(self, how: str) -> str:
    if how == "fail":
        raise ValueError(how)
    if how == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0)
    return how


@app.task(name="noting", base=NotingTask, time_limit=1)
def noting() -> None:
    time.sleep(30)


@app.task(name="ignores")
def ignores() -> None:
    raise Ignore


@app.task(name="rejects", bind=True)
def rejects(self, requeue: bool) -> str:
    ran(f"rejects:{self.request.id}")
    with open(os.environ["RAN"]) as file:
        if file.read().count(self.request.id) > 1:
            return "accepted"
    raise Reject("not now", requeue=requeue)


@app.task(name="unkept", ignore_result=True)
def unkept() -> str:
    return "nobody asks"


@app.task(name="gathers")
async def gathers(numbers: list[int]) -> list[int]:
    async def double(number: int) -> int:
        await asyncio.sleep(0.01)
        return number * 2

    return list(await asyncio.gather(*map(double, numbers)))


@app.task(name="retries_async", bind=True, autoretry_for=(ValueError,), retry_backoff=False, default_retry_delay=0)
async def retries_async(self) -> int:
    if self.request.retries < 2:
        raise ValueError("again")
    return self.request.retries
