"""What is reported about a fold: the facts, the words, the terminal, the page."""

# The format of all JSON reports; docs/report.md describes it.
FORMAT = "foldserve.report/1"
