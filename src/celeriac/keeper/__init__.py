"""The keeper: the background duties of an instance, done by one leader among any number of keepers.

Each duty is one file with one class and one `tick()`, a step that a test calls directly:
`due` queues what falls due, `rescuer` takes jobs from dead workers, `operator` cancels and retries
what people filter, `pruner` deletes what is old, `tally` folds the counts. `leader` says who may, `loop` says when,
`detour` goes round a row that cannot be moved.
`docs/tour.md` follows one job through the files.
"""

from celeriac.keeper.loop import Loop, run

__all__ = ["Loop", "run"]
