"""The load: many viewers that check what they are sent, and HTTP callers that never wait for each other."""
