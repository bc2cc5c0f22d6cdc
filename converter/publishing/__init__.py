"""Publish a proven model as a version that the service serves: in a folder, or in a store."""
