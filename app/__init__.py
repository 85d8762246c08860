"""Performance Queue: the one service that owns every performer's request queue."""
