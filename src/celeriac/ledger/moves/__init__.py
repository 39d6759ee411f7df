"""The moves of a job: each a function over a Transaction that takes and answers many items at once.

`submit` -> `claim` -> `finish` is a job's life; `requests` is what a person asks of it. `chords`,
`abandon` and `revive` say what follows from an end. `ledger/__init__.py` exports them.
"""
