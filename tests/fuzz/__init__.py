"""Structured noise against the real service: HTTP heads and bodies, handshakes and frames, each almost right.

    grammar    makes one case from a seed     assault    sends cases, and looks at what comes back
    heads      requests over HTTP             reading    which requests RFC 9112 sees in some bytes
    answers    whether the answers fit them   __main__   hundreds of thousands of cases
    test_fuzz  some thousands, and the seeds that have found something

`python -m tests.fuzz --cases 200000`; a case is made from its seed alone, so any can be tried again by itself.
"""
