"""From the socket to the route: limits, keys, refusals and the ways that need no task."""
