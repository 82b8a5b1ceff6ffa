"""Tensors in, tensors out: what this project exists for."""
