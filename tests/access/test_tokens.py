"""Secrets are long, recognisable and never kept; a digest tells nothing."""

import re

import pytest

from celeriac.access import Role, digest, faults_of, new_secret


def test_a_secret_has_256_bits_and_a_prefix():
    secrets = {new_secret() for _ in range(200)}

    assert len(secrets) == 200
    assert all(re.fullmatch(r"cel_[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_a_digest_is_the_same_each_time_and_another_for_another():
    assert digest("a") == digest("a") != digest("b")
    assert re.fullmatch(r"[0-9a-f]{64}", digest("a"))


@pytest.mark.parametrize("text", ["", "\0", "\ud800", "é" * 10_000])
def test_any_text_that_somebody_sends_has_a_digest(text: str):
    assert len(digest(text)) == 64


@pytest.mark.parametrize("name", ["ci", "grafana (read)", "Ännchen", "x" * 64, "a/b@c"])
def test_any_printable_name_will_do(name: str):
    assert faults_of(name, name, Role.SUBMITTER, ["mail.*"]) == []


def test_too_many_patterns_are_told_once():
    assert len(faults_of("ci", "ann", Role.SUBMITTER, [""] * 5000)) == 101
