"""The subcommands of `python -m converter`: each file adds its arguments and runs."""
