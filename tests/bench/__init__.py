"""The benchmark: the service and its peers, measured by turns on one machine. `python -m tests.bench --help`.

It starts the real server and the peers on one core and the load on another, checks and counts everything that arrives,
and judges by ratios within a round. `scenarios` is what is measured, `peers` whom against, `load` what drives them;
`figures` and `report` turn rounds into medians, ratios and tables.

Beside it, each with its own `--help`: `python -m tests.bench.cluster` kills each part of a site of several processes in
turn, `python -m tests.bench.scaling` reckons from the figures of the scenario `scaling` what a large site takes.
"""
