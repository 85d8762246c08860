"""The sandbox wallet: a wallet service to run against, with the whole published interface and a real ledger.

It is a party of its own. Nothing of the queue is imported here, so that a misunderstanding of the interface cannot
cancel itself out; what it shares with the service is a database, where its tables begin with `sandbox_`.

    tables   accounts, postings, escrows, answers
    ledger   every rule about tokens                 ledger_audit  the sums, and whether all agree
    wallet_handlers  the interface as plain functions    faults   how to fail on purpose
    site     the same over HTTP
"""

from app.sandbox.site import create_sandbox

__all__ = ["create_sandbox"]
