"""The study file: schema, loader with line numbers, cells and plans."""
