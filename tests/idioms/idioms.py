"""The rows of the table in docs/celery.md: an idiom of Celery, and a function that tries it in a World.

`instead` says, for the configurations whose cell is "no", what happens there. The idioms themselves are in
`idioms_*.py`, in the order of the table.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from world import CONFIGURATIONS, MODES, POOLS, World

from celeriac.states import State

Try = Callable[[World], None]
SECONDS = 20


@dataclass
class Idiom:
    """A row of the table: what works, and what happens in the configurations where it does not."""

    name: str
    works: Try
    instead: dict[tuple[str, str], Try] = field(default_factory=dict)

    def cells(self) -> list[str]:
        return ["no" if configuration in self.instead else "yes" for configuration in CONFIGURATIONS]


IDIOMS: dict[str, Idiom] = {}


def idiom(name: str) -> Callable[[Try], Try]:
    def enter(works: Try) -> Try:
        assert name not in IDIOMS
        IDIOMS[name] = Idiom(name, works)
        return works

    return enter


def instead(name: str, modes: tuple[str, ...] = MODES, pools: tuple[str, ...] = POOLS) -> Callable[[Try], Try]:
    def enter(happens: Try) -> Try:
        IDIOMS[name].instead |= {(mode, pool): happens for mode in modes for pool in pools}
        return happens

    return enter


def succeeds(here: World, result, value) -> None:
    assert result.get(timeout=SECONDS) == value
    here.ended(result.id, State.SUCCEEDED)
