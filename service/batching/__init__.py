"""Requests that run together: who is let in, who waits, what runs next, in which sizes."""
