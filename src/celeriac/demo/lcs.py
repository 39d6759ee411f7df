"""The longest common substring of two texts, in near-linear time.

Called by the demo's `lcs` task. Pure: two texts in, one frozen Match out, the same for the same texts every time.
Right for any Python string (astral, combining, NUL, lone surrogates, empty); lengths and positions count code points,
as `len` and slices do. Method: the suffix array of both texts joined by a separator, then the longest prefix that
neighbours in it share (Kasai et al., CPM 2001).
Why this library, with figures: docs/decisions/0003-longest-common-substring.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Match:
    """One common substring: `text == a[a_at:a_at + length] == b[b_at:b_at + length]`; empty, at 0 and 0, if none is."""

    text: str
    length: int
    a_at: int
    b_at: int


def longest_common_substring(a: str, b: str) -> Match:
    """Finds the longest text that is in both; of equally long ones that with the smallest `a_at`, then `b_at`."""
    if not a or not b:
        return Match("", 0, 0, 0)
    # Imported here: the web process imports the tasks for their signatures and should not pay numpy's memory.
    import numpy as np
    from pydivsufsort import divsufsort, kasai

    symbols = _symbols(a, b)
    suffixes = divsufsort(symbols)
    shared = kasai(symbols, suffixes)[:-1]  # shared[i]: prefix common to suffixes[i] and suffixes[i + 1]
    in_a = suffixes < len(a)
    crossing = in_a[:-1] != in_a[1:]
    length = int(np.max(shared, where=crossing, initial=0))
    if length == 0:
        return Match("", 0, 0, 0)
    a_at, b_at = _first(suffixes, in_a, shared >= length, len(a))
    return Match(a[a_at : a_at + length], length, a_at, b_at)


def _symbols(a: str, b: str) -> Array:
    """Joins both texts as numbers of the smallest type that fits, with a separator (0) that is in neither.

    Characters that only one text has can never match, so all of them become one symbol (1 in `a`, 2 in `b`): a small
    alphabet sorts two to four times faster.
    """
    import numpy as np

    points_a, points_b = _code_points(a), _code_points(b)
    in_a, in_b = np.zeros(0x110000, dtype=bool), np.zeros(0x110000, dtype=bool)
    in_a[points_a] = True
    in_b[points_b] = True
    both = in_a & in_b
    number = np.cumsum(both, dtype=np.uint32) + np.uint32(2)
    joined = np.zeros(len(a) + 1 + len(b), dtype=np.min_scalar_type(int(number[-1])))
    joined[: len(a)] = np.where(both, number, 1)[points_a]
    joined[len(a) + 1 :] = np.where(both, number, 2)[points_b]
    return joined


def _code_points(text: str) -> Array:
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _first(suffixes: Array, in_a: Array, joined: Array, separator: int) -> tuple[int, int]:
    """Picks the smallest start in `a` that also starts in `b`, then the smallest start in `b` with that text.

    Neighbours whose `joined` is true share the text we look for, so a run of them is one text with all its places.
    """
    import numpy as np

    starts = np.flatnonzero(np.concatenate(([True], ~joined)))
    first_in_a = np.minimum.reduceat(np.where(in_a, suffixes, suffixes.size), starts)
    first_in_b = np.minimum.reduceat(np.where(in_a, suffixes.size, suffixes), starts)
    run = int(np.argmin(np.where(first_in_b < suffixes.size, first_in_a, suffixes.size)))
    return int(first_in_a[run]), int(first_in_b[run]) - separator - 1
