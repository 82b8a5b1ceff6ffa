"""The vLLM engine, on one GPU or many. Nothing here imports vLLM before a model is loaded.

engine    the engine: what it does with vLLM's process and with the reports of its workers
launch    checks, options and environment before vLLM starts
process   a running vLLM: requests, calls to its workers, its end
tree      sequences as a prefix tree: what they share is computed once
messages  what driver and workers send each other
gather    the ranks' reports put together and checked
worker    inside each worker: the methods that the driver calls
sites     inside each worker: where the neurons are, found and proved
runner    inside each worker: vLLM's two model runners
rank      inside each worker: the part of the model that lives there, with its hooks
passes    inside each worker: a pass that counts and scores
firing    inside each worker: sums of firings, and changes of activations
"""

from .engine import VLLMEngine

__all__ = ["VLLMEngine"]
