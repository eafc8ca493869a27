"""Agents in workflows: import paths that users know."""

from flux.agents.inline import agent

__all__ = ["agent"]
