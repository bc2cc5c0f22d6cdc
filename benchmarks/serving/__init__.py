"""The service beside other servers: throughput, latency, and where the time goes."""
