"""The process and the machine: the memory that may be used, and what libraries print."""
