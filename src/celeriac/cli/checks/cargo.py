"""Cargo: what a broker carries. A fault of the server weighs more where that is jobs, and not hints of ours.

Made by broker.py for the judgements in redis.py and rabbitmq.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cargo:
    """`name` for people. `longest`: of jobs, the longest time limit of a task that is acknowledged late, in seconds."""

    name: str
    longest: float | None = None


HINTS = Cargo("hints (which are sent again) and other programs' messages")
