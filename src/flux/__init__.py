"""Flux: LLM agents as durable resources."""

__version__ = "0.1.0"
