"""Cost to queue: the smallest threshold that is enough decides."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.routing import queue_of

QUEUES = {1_000: "small", 50_000: "medium", None: "large"}


@pytest.mark.parametrize(
    ("cost", "queue"),
    [
        (0, "small"),
        (-5, "small"),
        (1_000, "small"),
        (1_000.5, "medium"),
        (50_000, "medium"),
        (50_001, "large"),
        (math.inf, "large"),
        (10**40, "large"),
    ],
)
def test_a_cost_goes_to_the_smallest_queue_that_takes_it(cost: float, queue: str):
    assert queue_of(cost, QUEUES) == queue


def test_the_order_of_writing_does_not_matter():
    assert queue_of(7, {None: "large", 50: "medium", 10: "small"}) == "small"


def test_a_cost_above_every_threshold_has_no_queue_of_its_own():
    assert queue_of(11, {10: "small"}) is None
    assert queue_of(11, {}) is None


def test_a_single_queue_takes_everything():
    assert queue_of(10**9, {None: "all"}) == "all"


@given(st.integers(), st.integers(), st.dictionaries(st.integers() | st.none(), st.integers()))
def test_more_cost_never_leads_to_a_lower_threshold(cost: int, more: int, thresholds: dict):
    ordered = sorted(key for key in thresholds if key is not None)
    rank = {key: place for place, key in enumerate(ordered)} | {None: len(ordered)}
    queues = {key: rank[key] for key in thresholds}
    low, high = (queue_of(value, queues) for value in sorted((cost, more)))

    assert high is None or (low is not None and low <= high)
