"""The language task: byte models that train in minutes."""
