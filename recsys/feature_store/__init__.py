"""Features of users and items: one definition for training and for serving."""
