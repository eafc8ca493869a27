"""Import paths of agents in code."""
