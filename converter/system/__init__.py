"""The process and the machine: how much memory may be used, and what libraries print."""
