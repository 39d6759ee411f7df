"""Random lives of jobs: played in the ledger and beside it in a model that knows nothing of SQL.

`machine` plays them and compares, `deeds` are what may happen, `wishes` what is submitted and reported, `model` the
rules, `records` what the model keeps. Called by `test_life.py`.
"""
