"""Models of other libraries, which need an environment of their own, on the same rows."""
