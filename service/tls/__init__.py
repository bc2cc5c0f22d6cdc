"""TLS of the service: the files with the certificate, and when it expires."""
