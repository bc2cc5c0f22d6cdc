"""What each subcommand takes, declared once: types, defaults, help, choices, checks of one value.

A class is a command line: its fields are the options, its docstring their help. These files
import no torch, so that help and a mistyped option are answered at once. See `cli.py`.
"""
