"""From measurements to report.json, Markdown, HTML and verdicts."""
