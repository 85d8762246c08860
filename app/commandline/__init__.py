"""The commands of an operator: what `python -m app` offers besides running the service."""
