"""Exceptions made storable, and tracebacks that begin with the user's own code."""

from pathlib import Path

import celery

import celeriac
from celeriac.worker import failures
from celeriac.worker.failures import crashed, failure_of, shortened

HEAD = "Traceback (most recent call last):\n"
CELERY = f'  File "{celery.__file__.replace("__init__", "app/trace")}", line 5, in trace_task\n    R = fun()\n'
OURS = f'  File "{failures.__file__}", line 9, in run\n    go()\n'
USERS = '  File "/srv/tasks.py", line 3, in fail\n    raise ValueError("no")\nValueError: no\n'


def test_the_frames_before_the_users_own_are_left_out():
    assert shortened(HEAD + CELERY + OURS + USERS) == HEAD + USERS


def test_frames_behind_the_users_own_stay():
    assert shortened(HEAD + CELERY + USERS.replace("ValueError: no\n", CELERY)) == HEAD + USERS.replace(
        "ValueError: no\n", CELERY
    )


def test_a_traceback_without_the_users_code_stays_whole():
    assert shortened(HEAD + CELERY + "EncodeError: no\n") == HEAD + CELERY + "EncodeError: no\n"


def test_what_is_no_traceback_stays_as_it_is():
    assert shortened("not a traceback") == "not a traceback"


def test_an_exception_whose_str_raises_is_described():
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    failure = failure_of(Hostile(), None, None)
    assert (failure.type.endswith("Hostile"), failure.message) == (True, "(its str() raised RuntimeError)")


def test_the_demos_tasks_are_shown_as_a_users():
    demo = f'  File "{Path(celeriac.__file__).parent}/demo/tasks.py", line 1, in divide\n    return x / y\n'

    assert shortened(HEAD + CELERY + demo + "ZeroDivisionError\n") == HEAD + demo + "ZeroDivisionError\n"


CRASH = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
CRASHED = '  File "/srv/tasks.py", line 3 in crash\n'
RUNNING = f'  File "{celery.__file__.replace("__init__", "app/trace")}", line 5 in trace_task\n'


def test_the_stack_of_a_crash_ends_where_the_task_began():
    assert crashed(CRASH + CRASHED + RUNNING + CRASHED) == (CRASH + CRASHED).rstrip()


def test_the_stack_of_a_crash_outside_the_users_code_stays_whole():
    assert crashed(CRASH + RUNNING) == CRASH + RUNNING
