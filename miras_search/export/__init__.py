"""One table object rendered as text, Markdown, LaTeX, HTML, CSV and JSON; figures, data and a report of a study."""
