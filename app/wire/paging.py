"""The bounds of listings: how many entries a page has, and how far one may skip."""

DEFAULT_LIMIT = 20
LARGEST_LIMIT = 100
LARGEST_DELIVERIES_LIMIT = 200
LARGEST_EVENTS_LIMIT = 1000
DEEPEST_SKIP = 1_000_000
MOST_PERFORMERS = 200
"""Performers that one request may name."""
LONGEST_SEARCH = 255
"""Characters of a search text: as many as the longest reference has."""
LARGEST_VERSION = 2**48
"""More events than any room will have."""
