"""What is said of a fold: the facts, the words, the terminal, the page."""

# The form of all JSON reports; docs/report.md describes it.
FORMAT = "foldserve.report/1"
