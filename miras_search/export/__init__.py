"""One table object rendered as Markdown, LaTeX, CSV and JSON."""
