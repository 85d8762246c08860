"""Real processes of the service, real clients, and faults at random from a seed; afterwards nothing may be wrong.

    scene     the processes: service, database, bus, wallet    served    how the service is started here
    kinds     the faults that are injected                     clients   features, viewers, panels, watchers
    history   what the clients were answered, and when         checker   reads that and the database afterwards
    trial     one run                                          breaches  the product broken on purpose

`python -m tests.faults` runs it for as long as wanted; the tests run a short one on either database.
"""
