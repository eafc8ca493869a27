"""Memory of agents in code: `agent(..., working_memory=working_memory(), long_term_memory=long_term_memory(...))`."""

from flux.agents.define.memory import LongTermMemory, in_memory, long_term_memory, postgresql, sqlite
from flux.agents.history.window import WorkingMemory, working_memory
from flux.agents.memory.store import MemoryStore

__all__ = [
    "LongTermMemory",
    "MemoryStore",
    "WorkingMemory",
    "in_memory",
    "long_term_memory",
    "postgresql",
    "sqlite",
    "working_memory",
]
