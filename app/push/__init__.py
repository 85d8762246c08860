"""Push notifications to the browsers of viewers who have asked for them (RFC 8030, 8291, 8292)."""
