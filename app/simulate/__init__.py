"""Simulates a day at a live site over the public contract: features, performers and viewers, who check all answers.

It imports none of the queue's rules: a client that shares them with the service could not detect an error in them.

    catalogue      features and their offers
    escrow_client  the wallet side: holds tokens for requests
    site           the HTTP side of the contract
    live           the socket side
    view           a client's state of a room, and its differences from the server's
    people         features, performers, viewers
    tally          the counters of a run
    run            one run and its checks
    screen         a run in a terminal
    demo           the demo's people
"""
