"""The number that a model's answer comes to, exactly, whichever way it is written (decision 0038)."""

from .answer import final_number, same_number

__all__ = ["final_number", "same_number"]
