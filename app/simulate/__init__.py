"""A realistic day at a live site, driven over the public contract: features, performers and viewers, and whether what
they were told was true.

Nothing of the queue's own rules is imported here; a client that learnt them from the service could not catch it lying.

    catalogue  features and their offers            site    the HTTP side of the contract
    escrow_client  tokens held first                 live    the socket side
    people     features, performers, viewers     view    what a client knows, and how it differs from the truth
    tally      what a run has seen               run     one run and its checks          screen  how it looks
"""
