"""What the baselines run: the same work, written for Celery, Flask and dramatiq.

Each is imported by processes of its own; addresses come from `BASELINE_*` variables.
"""
