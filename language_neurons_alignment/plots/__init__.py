"""Numbers → figures, which the caller saves."""
