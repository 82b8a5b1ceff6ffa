"""A dataset file → records → token sequences with their spans."""
