"""Other ways to find language neurons, over the same files, and how they compare."""
