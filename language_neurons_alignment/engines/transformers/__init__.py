"""The transformers engine: any supported decoder of the Hugging Face library, on CPU, CUDA or MPS."""

from .engine import TransformersEngine

__all__ = ["TransformersEngine"]
