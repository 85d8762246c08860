"""The sandbox wallet: a wallet service for development, with the whole published interface and a real ledger.

It imports nothing of the queue: if both shared code, a misunderstanding of the interface would stay hidden. It shares
only the database with the service; its tables begin with `sandbox_`.

    tables           accounts, postings, escrows, answers
    ledger           every rule about tokens
    ledger_audit     the sums, and every contradiction
    wallet_handlers  the interface as plain functions
    faults           failures on purpose
    site             the handlers over HTTP
"""

from app.sandbox.site import create_sandbox

__all__ = ["create_sandbox"]
