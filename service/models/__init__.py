"""The models of a repository: read, checked, loaded, warmed up, served, reloaded."""
