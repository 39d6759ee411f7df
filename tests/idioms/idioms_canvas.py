"""Chains, groups, chords, links.

Each idiom as somebody would write it, with what must come of it in any configuration. See idioms.py.
"""

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError
from idioms import SECONDS, idiom, succeeds

from celeriac.jobs import new_id
from celeriac.states import State


@idiom("`chain`")
def _(here):
    result = chain(here.add.s(1, 1), here.add.s(1), here.add.s(1)).delay()
    succeeds(here, result, 4)
    assert here.job(result.id).root == result.parent.parent.id


@idiom("`group`")
def _(here):
    results = group(here.add.s(n, n) for n in range(4)).delay()
    assert results.get(timeout=SECONDS) == [0, 2, 4, 6]
    for member in results:
        here.ended(member.id, State.SUCCEEDED)


@idiom("`chord`")
def _(here):
    succeeds(here, chord([here.add.s(n, n) for n in range(4)], here.total.s()).delay(), 12)


@idiom("`chord` of many members")
def _(here):
    succeeds(here, chord([here.add.s(n, 1) for n in range(200)], here.total.s()).delay(), 20_100)


@idiom("`chord` with a failing member")
def _(here):
    result = chord([here.add.s(1, 1), here.fail.si("no")], here.total.s()).delay()
    with pytest.raises((ChordError, ValueError), match="no"):
        result.get(timeout=SECONDS)
    if here.mode == "own":
        assert here.ended(result.id, State.FAILED).failure.code == "upstream-failed"
    assert here.state(result.id) in ("failed", "unknown")  # the body is not sent


@idiom("canvas in canvas")
def _(here):
    links = here.add.s(1, 1), group(here.add.s(n) for n in range(3)), here.total.s(), here.add.s(1000)
    succeeds(here, chain(*links).delay(), 1009)


@idiom("`link`")
def _(here):
    label = new_id()
    succeeds(here, here.add.apply_async((1, 1), link=here.followed.s(label)), 2)
    here.comes(f"followed:{label}:2")


@idiom("`link_error`, old style and new")
def _(here):
    result = here.fail.apply_async(("no",), link_error=[here.wailed.s(), here.explained.s()])
    here.ended(result.id, State.FAILED)
    here.comes(f"wailed:{result.id}")
    here.comes(f"explained:{result.id}:no")
