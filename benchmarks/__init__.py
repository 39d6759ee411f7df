"""Benchmarks: Celeriac side by side with what people use today, in one run on one machine.

`make bench` runs them all, `python -m benchmarks submits latency --quick` some. Each file with a
`run` is one benchmark; `docs/benchmarks.md` says what the figures mean. They start private
processes in temporary folders and leave nothing behind.
"""
