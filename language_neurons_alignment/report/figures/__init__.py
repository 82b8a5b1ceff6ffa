"""Results → sections of a report, one figure a file: what it shows, and how to read it."""
