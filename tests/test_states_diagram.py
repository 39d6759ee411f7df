"""The diagram that people read is the table that the code obeys."""

import re
from pathlib import Path

from celeriac.states import diagram

CONCEPTS = Path(__file__).parent.parent / "docs" / "concepts.md"


def test_the_diagram_in_the_concepts_is_drawn_from_the_table_of_moves():
    shown = re.findall(r"^```mermaid\n(.*?)\n```$", CONCEPTS.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)

    assert shown == [diagram()], "print(celeriac.states.diagram()) gives what docs/concepts.md has to show"
