"""The bounds of listings: how many entries a page has, and how far one may skip."""

DEFAULT_LIMIT = 20
LARGEST_LIMIT = 100
LARGEST_DELIVERIES_LIMIT = 200
LARGEST_EVENTS_LIMIT = 1000
DEEPEST_SKIP = 1_000_000
MOST_PERFORMERS = 200
"""Named in one request."""
LONGEST_SEARCH = 255
"""Characters of what is searched for: no longer than any reference."""
LARGEST_VERSION = 2**48
"""More events than any room will have."""
