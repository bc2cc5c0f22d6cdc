"""A file for each server; `catalogue.py` lists them."""
