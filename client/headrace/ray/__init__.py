"""Batches on a Ray cluster: a stage for Ray Data's ``map_batches`` that embeds an engine in each actor. ``headrace[ray]``."""

from headrace.ray.engine_stage import EngineStage

__all__ = ["EngineStage"]
