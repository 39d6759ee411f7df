"""The revisions of the ledger, oldest first.

Each file brings a database from the one before to itself; none is ever changed after a release.
"""
