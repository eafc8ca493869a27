"""Stored sources as live modules: loaded by a worker that runs their workflows, or has their tools called.

Loading runs code of users: in a thread of its own, so that what hangs there does not stop the worker.
"""

from __future__ import annotations

import asyncio
import linecache
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future
from types import ModuleType

from msgspec import Struct
from msgspec.structs import replace

from flux.engine.workflows.declared import SOURCE_PREFIX, Declared
from flux.errors import SourceUnusable, describe
from flux.store import workflows
from flux.store.database import Database
from flux.store.executions import Execution
from flux.store.workflows import WorkflowVersion

#: Modules that stay loaded, and seconds that one gets to load.
KEPT = 256
LOAD_SECONDS = 30.0

Loading = Future[ModuleType | str]


class Code(Struct, frozen=True):
    """A source by its digest; `label` is what messages call it, traces also by its kind."""

    label: str
    digest: str
    text: str
    kind: str = "workflow"


def module_name(digest: str) -> str:
    """What a source is called among the modules of a worker."""
    return f"{SOURCE_PREFIX}{digest}"


class SourceLoader:
    """Loads sources, and keeps those used last; `seconds` is what one gets to load."""

    def __init__(self, *, kept: int = KEPT, seconds: float = LOAD_SECONDS) -> None:
        self._kept = kept
        self._seconds = seconds
        self._modules: OrderedDict[str, ModuleType] = OrderedDict()
        self._loading: dict[str, Loading] = {}

    async def workflow(self, found: WorkflowVersion) -> Declared:
        """The live workflow of a stored one.

        :raises SourceUnusable: its source cannot be loaded here, or has no such workflow
        """
        module = await self.module(_code(found))
        wanted = found.declared
        for value in list(vars(module).values()):
            # Asked of the type: a module may hold objects that answer to any name.
            if hasattr(type(value), "qualified_name") and value.qualified_name == wanted:
                live: Declared = value
                return live
        raise _unusable(_code(found), "when it is loaded, it has no such workflow at its top level")

    async def module(self, code: Code) -> ModuleType:
        """The module of a source.

        :raises SourceUnusable: it cannot be loaded here
        """
        module = self._modules.get(code.digest)
        if module is None:
            outcome = await self._load(code)
            if isinstance(outcome, str):
                raise _unusable(code, outcome)
            module = self._modules[code.digest] = outcome
            self._drop_oldest()
        self._modules.move_to_end(code.digest)
        return module

    def has_loaded(self, found: WorkflowVersion) -> bool:
        """Whether its module is there, so that its source is not needed."""
        return found.digest in self._modules

    async def _load(self, code: Code) -> ModuleType | str:
        """The module, or why there is none. Who asks while it loads, or hangs, waits for the same thread."""
        loading = self._loading.get(code.digest)
        if loading is None:
            loading = self._loading[code.digest] = Loading()
            loading.set_running_or_notify_cancel()  # who stops waiting for it does not cancel it
            threading.Thread(target=_run, args=(code, loading), name=module_name(code.digest), daemon=True).start()
        waiting = asyncio.wrap_future(loading)
        try:
            await asyncio.wait((waiting,), timeout=self._seconds)
        finally:
            waiting.cancel()
        if not loading.done():
            return f"it did not load within {self._seconds:g} seconds"
        self._loading.pop(code.digest, None)
        return loading.result()

    def _drop_oldest(self) -> None:
        while len(self._modules) > self._kept:
            digest, module = self._modules.popitem(last=False)
            sys.modules.pop(module_name(digest), None)
            linecache.cache.pop(module.__file__ or "", None)


class CatalogCode:
    """Finds the code of executions whose workflow is registered; what a version is never changes."""

    def __init__(self, database: Database, loader: SourceLoader) -> None:
        self._database = database
        self._loader = loader
        self._known: OrderedDict[tuple[str, str | None, int | None], WorkflowVersion] = OrderedDict()

    async def __call__(self, row: Execution) -> Declared:
        """The code of an execution, of the version that it began with.

        :raises SourceUnusable: it cannot be loaded here
        :raises WorkflowNotFound: it is not registered
        """
        known = self._known.get((row.tenant, row.workflow, row.source_version))
        if known is not None and self._loader.has_loaded(known):
            return await self._loader.workflow(known)
        namespace, _, name = (row.workflow or "").partition("/")
        found = await self._database.single(workflows.get(row.scope, namespace, name, row.source_version))
        if found is None:
            raise workflows.not_found(namespace, name)
        self._remember(row, found)
        return await self._loader.workflow(found)

    def _remember(self, row: Execution, found: WorkflowVersion) -> None:
        if row.source_version is not None:
            self._known[row.tenant, row.workflow, row.source_version] = replace(found, source="")
        if len(self._known) > KEPT:
            self._known.popitem(last=False)


def _code(found: WorkflowVersion) -> Code:
    return Code(f"{found.qualified_name} version {found.version}", found.digest, found.source)


def _run(code: Code, loading: Loading) -> None:
    """Run a source as a module; the outcome goes to `loading`, whatever it is."""
    file = f"<{code.kind} {code.label}, {code.digest[:8]}>"
    linecache.cache[file] = (len(code.text), None, code.text.splitlines(keepends=True), file)
    module = ModuleType(module_name(code.digest))
    module.__file__ = file
    sys.modules[module.__name__] = module
    with _Outcome(loading, module):
        exec(compile(code.text, file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - users' code


class _Outcome:
    """Tells whoever waits how the loading of a module ended; whatever it raised, even exit(), ends here."""

    def __init__(self, loading: Loading, module: ModuleType) -> None:
        self._loading = loading
        self._module = module

    def __enter__(self) -> None:
        pass

    def __exit__(self, cls: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            self._loading.set_result(self._module)
        else:
            sys.modules.pop(self._module.__name__, None)
            self._loading.set_result(_reason(error, self._module.__file__ or ""))
        return True


def _reason(error: BaseException, file: str) -> str:
    """Why a source does not load, in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"it imports {error.name!r}, which is not installed on this worker"
    line, trace = 0, error.__traceback__
    while trace is not None:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == file else line
        trace = trace.tb_next
    place = f"line {line}: " if line else ""
    return " ".join(f"it fails when it is loaded: {place}{describe(error)}".split())


def _unusable(code: Code, reason: str) -> SourceUnusable:
    return SourceUnusable(f"the source of {code.label} cannot be used: {reason}")
