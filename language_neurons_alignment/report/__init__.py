"""Sections about one model (`model`) and about two (`comparison`), and the HTML page (`page`, `template/`)."""
