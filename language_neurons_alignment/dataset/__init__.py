"""A corpus file: made from a source, and checked."""
