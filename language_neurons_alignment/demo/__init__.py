"""The demo: the whole pipeline on a small real model and a corpus that comes with this package."""
