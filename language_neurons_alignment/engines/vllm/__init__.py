"""The vLLM engine: the same numbers on one GPU or many. Nothing here imports vLLM until it must."""

from .engine import VLLMEngine

__all__ = ["VLLMEngine"]
