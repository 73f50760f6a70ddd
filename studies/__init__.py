"""Studies that ship with the package, each with the question it asks."""
