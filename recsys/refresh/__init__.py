"""Train again on what has come since, and serve the new model only if it is not worse."""
