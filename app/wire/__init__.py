"""The wire: the only package that knows JSON, in and out.

`requests` reads what callers send, `shapes` says what they get, `frames` what travels over the socket; `encoding` turns
either into bytes. Nothing here decides, stores or sends.
"""
