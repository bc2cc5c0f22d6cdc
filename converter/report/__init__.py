"""What is said of a fold: the facts, the words, the terminal, the page."""
