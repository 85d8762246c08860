"""The commands of an operator: those of `python -m app` besides running the service."""
