"""Models and the service in a program of one's own: `foldserve.Predictor`, `foldserve.app`.

Nothing here sets up a log, handles a signal or reads an environment variable: those are the
program's.
"""
