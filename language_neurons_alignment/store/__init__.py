"""Where results lie, how they are written whole, and what they were made from."""
