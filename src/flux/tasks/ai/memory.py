"""Memory of agents in code: `agent(..., working_memory=working_memory(), long_term_memory=long_term_memory(...))`."""

from flux.agents.memory import MemoryStore
from flux.agents.memory_choice import LongTermMemory, in_memory, long_term_memory, postgresql, sqlite
from flux.agents.window import WorkingMemory, working_memory

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
