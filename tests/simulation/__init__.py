"""The simulation: the service's real parts under a seeded scheduler with virtual time, in a world that means them ill.

    python -m tests.simulation --seeds 20000         many worlds, each from its seed
    python -m tests.simulation --seed 17 --seeds 1   one of them again, exactly

Real are lanes' writers, store (SQLite in memory), outbox, breaker, wallet client, timers, presence, hub, actions, and
the sandbox's ledger and handlers. Played are the event loop's time, the threads, the network, the bus and the people.

    loop       time that jumps, threads that are not             climate     how bad a seed's world is
    databases  the two databases, kept through crashes           process     one process of the service, and its death
    wallet     the wallet and the network before it              people      features, performers, users, admins
    watchers   clients of the live socket                        administrators  payments by hand
    checks     what must hold when all is calm                   world       one seed from beginning to end
    sabotage   rules broken on purpose
"""
