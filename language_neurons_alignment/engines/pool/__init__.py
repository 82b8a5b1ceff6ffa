"""A pool: several replicas of a model, on Ray, as one engine. Nothing here imports Ray before a pool is opened.

engine      the engine: cuts work into units, and puts their results together
dispatcher  hands the next unit to whoever is free; does those of a dead replica again
replica     inside each actor: a model, and the units that it does
cluster     Ray: started or joined, actors started and ended; the only module that imports it
threads     several pieces of work at a time, so that a pool has enough to do
"""

from ..._importing import importing

with importing():  # in a replica, torch and the transformers library too
    from .engine import EnginePool

__all__ = ["EnginePool"]
