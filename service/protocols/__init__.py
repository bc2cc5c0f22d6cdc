"""Front ends: one file for each protocol that the server speaks."""
