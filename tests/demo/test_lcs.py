"""The longest common substring against a brute-force oracle, on every kind of text Python can hold."""

import random
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celeriac.demo.lcs import Match, longest_common_substring

# Few characters make many matches and ties: NUL, a combining accent, both halves of a surrogate pair, astral ones.
FEW = st.text(alphabet="ab\0\u0301\ud83d\ude00😀𝒳", max_size=40)
ANY = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)
REPETITIVE = st.builds(
    lambda unit, times, tail: unit * times + tail,
    st.text(alphabet="ab😀", min_size=1, max_size=4),
    st.integers(0, 12),
    st.text(alphabet="ab😀", max_size=4),
)
TEXTS = st.one_of(FEW, ANY, REPETITIVE)


def brute_force(a: str, b: str) -> Match:
    """Looks at every pair of starts from the end: what two starts share is one more than what the next two share."""
    best, below = (0, 0, 0), [0] * (len(b) + 1)
    for a_at in reversed(range(len(a))):
        row = [below[b_at + 1] + 1 if a[a_at] == b[b_at] else 0 for b_at in range(len(b))]
        best = max([best, *((length, -a_at, -b_at) for b_at, length in enumerate(row) if length)])
        below = [*row, 0]
    length, a_at, b_at = best[0], -best[1], -best[2]
    return Match(a[a_at : a_at + length], length, a_at, b_at)


@given(TEXTS, TEXTS)
@example("", "")
@example("", "a")
@example("a", "b")
@example("\ud83d\ude00", "😀")  # two lone surrogates are not the character they would encode
@settings(deadline=None)
def test_it_agrees_with_trying_every_pair(a: str, b: str) -> None:
    assert longest_common_substring(a, b) == brute_force(a, b)


@given(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
@settings(deadline=None)
def test_texts_with_a_shared_part_agree_too(
    shared: str, before_a: str, after_a: str, before_b: str, after_b: str
) -> None:
    a, b = before_a + shared + after_a, before_b + shared + after_b
    assert longest_common_substring(a, b) == brute_force(a, b)


@given(TEXTS)
@settings(deadline=None)
def test_a_text_has_all_of_itself_in_common(text: str) -> None:
    assert longest_common_substring(text, text) == Match(text, len(text), 0, 0)


def test_of_equally_long_matches_the_first_in_a_wins_then_the_first_in_b() -> None:
    assert longest_common_substring("zz-cd-ab", "ab+cd+cd") == Match("cd", 2, 3, 3)
    assert longest_common_substring("xab", "ab-ab") == Match("ab", 2, 1, 0)
    assert longest_common_substring("ab-ab", "xab") == Match("ab", 2, 0, 1)


def test_positions_count_code_points() -> None:
    assert longest_common_substring("😀😀 match", "𝒳𝒳𝒳 match") == Match(" match", 6, 2, 3)


@pytest.mark.parametrize("symbols", [252, 253, 254, 255, 256, 257, 65_533, 65_536, 70_000])
def test_any_number_of_different_characters_keeps_the_separator_apart(symbols: int) -> None:
    a = "".join(map(chr, range(0x10000, 0x10000 + symbols)))
    cut = symbols // 3
    b = a[cut:] + a[:cut]
    assert longest_common_substring(a, b) == Match(a[cut:], symbols - cut, cut, 0)


@pytest.mark.parametrize(
    "alphabet", ["ACGT", [chr(0x4E00 + n) for n in range(3_000)]], ids=["ACGT", "3,000 characters"]
)
def test_it_finds_a_passage_planted_in_a_million_characters(alphabet: str | list[str]) -> None:
    luck = random.Random(2026)
    a, b, passage = ("".join(luck.choices(alphabet, k=k)) for k in (1_000_000, 1_000_000, 5_000))
    a = a[:700_000] + "<" + passage + ">" + a[705_002:]
    b = b[:123_456] + "(" + passage + ")" + b[128_458:]
    assert longest_common_substring(a, b) == Match(passage, 5_000, 700_001, 123_457)


def test_a_million_equal_characters_match_from_the_start() -> None:
    a, b = "a" * 1_000_000, "a" * 999_999 + "b"
    assert longest_common_substring(a, b) == Match("a" * 999_999, 999_999, 0, 0)


def test_importing_it_does_not_load_numpy() -> None:
    program = "import sys, celeriac.demo.lcs; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
