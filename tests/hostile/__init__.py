"""The proof that one hostile peer changes nothing for anybody: each attack beside honest viewers, panel and intakes.

    attacks    what a hostile peer does        crowd    the honest ones, and what they measure
    trial      one attack on one server        __main__ all of them, as a table

`python -m tests.hostile` runs them for some minutes, `test_hostile` a few of them shortly.
"""
