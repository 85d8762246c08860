"""The benchmark: the service and its peers, measured by turns on one machine. `python -m tests.bench --help`.

It starts the real server and the peers on one core and the load on another, checks and counts everything that arrives,
and judges by ratios within a round. `scenarios` is what is measured, `peers` whom against, `load` what drives them;
`figures` and `report` turn rounds into medians, ratios and tables.
"""
