"""A graph of tasks: each node runs once all that leads to it is done."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from flux.errors import InvalidInput

Condition = Callable[[Any], Any]


class _Edge(Struct, frozen=True):
    source: str
    target: str
    condition: Condition | None


class Graph:
    """Nodes are tasks, edges say what follows what. `await graph(input)` returns the end node's result.

    The start node gets the input, another node the results of those that led to it, in the order of its edges.
    An edge whose condition is false for its source's result is not followed; a node to which nothing leads is
    left out.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, Callable[..., Any]] = {}
        self._edges: list[_Edge] = []
        self._first: str | None = None
        self._last: str | None = None

    def add_node(self, name: str, task: Callable[..., Any]) -> Graph:
        """Add a node.

        :raises InvalidInput: the name is taken
        """
        if name in self._nodes:
            raise InvalidInput(f"the graph {self.name!r} has a node {name!r} already")
        self._nodes[name] = task
        return self

    def add_edge(self, source: str, target: str, condition: Condition | None = None) -> Graph:
        """Let `target` follow `source`, where `condition` of its result (if given) is true.

        :raises InvalidInput: there is no such node
        """
        self._check(source, target)
        self._edges.append(_Edge(source, target, condition))
        return self

    def start_with(self, name: str) -> Graph:
        """Begin with this node."""
        self._check(name)
        self._first = name
        return self

    def end_with(self, name: str) -> Graph:
        """The graph's result is that of this node."""
        self._check(name)
        self._last = name
        return self

    async def __call__(self, input: Any = None) -> Any:
        """Run the graph.

        :raises InvalidInput: it has no start or end, or a circle
        """
        first, last = self._ends()
        order = self._ordered()
        results: dict[str, Any] = {}
        followed: dict[str, list[str]] = {name: [] for name in self._nodes}
        for layer in order:
            ready = [name for name in layer if name == first or followed[name]]
            args = [(input,) if name == first else tuple(results[n] for n in followed[name]) for name in ready]
            values = await asyncio.gather(*(self._nodes[n](*a) for n, a in zip(ready, args, strict=True)))
            results.update(zip(ready, values, strict=True))
            for edge in self._edges:
                if edge.source in ready and await _holds(edge.condition, results[edge.source]):
                    followed[edge.target].append(edge.source)
        return results.get(last)

    def _ends(self) -> tuple[str, str]:
        if self._first is None or self._last is None:
            raise InvalidInput(f"the graph {self.name!r} needs start_with(node) and end_with(node)")
        return self._first, self._last

    def _ordered(self) -> list[list[str]]:
        """The nodes in layers: those of one layer depend only on earlier ones."""
        left, layers = dict.fromkeys(self._nodes), []
        while left:
            layer = [n for n in left if not any(e.target == n and e.source in left for e in self._edges)]
            if not layer:
                raise InvalidInput(f"the graph {self.name!r} has a circle: {', '.join(left)}")
            layers.append(layer)
            for name in layer:
                del left[name]
        return layers

    def _check(self, *names: str) -> None:
        for name in names:
            if name not in self._nodes:
                raise InvalidInput(f"the graph {self.name!r} has no node {name!r}; add_node() makes one")


async def _holds(condition: Condition | None, result: Any) -> bool:
    if condition is None:
        return True
    verdict = condition(result)
    return bool(await verdict if inspect.isawaitable(verdict) else verdict)
