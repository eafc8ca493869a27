"""A project: the agents and workflows of a folder of Python files, imported by their real names."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec import Struct

from flux.agents.define.agent import CreatedAgent
from flux.engine.dispatching.pools import DEFAULT
from flux.engine.workflows.workflow import NAME, NAMESPACE, workflow
from flux.errors import ProjectUnusable, describe

#: The module of a project that may decide for all its agents who may use which instance.
APP = "flux_app"
#: What an agent is called in its module.
ATTRIBUTES = ("default", "agent")
_IMPORTABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: May this request use this instance of this agent? Sync or async.
Authorize = Callable[[Any, str, str], bool | Awaitable[bool]]


class Project(Struct, frozen=True):
    """What a folder holds: its agents and workflows by name, and who may use an instance, by agent.

    `env` is what its `flux_app.py` gives to the initialisers of agents.
    """

    name: str
    root: Path
    agents: Mapping[str, CreatedAgent]
    workflows: Mapping[str, workflow]
    authorize: Mapping[str, Authorize]
    env: Any = None

    @property
    def pool(self) -> str:
        """The queue of its runs: only processes that have loaded it listen there."""
        return _pool(self.root)


def pool_of(file: Path) -> str:
    """The queue of the project that an agent's file belongs to: agents/NAME.py or src/agents/NAME.py."""
    return _pool(_root_of(file))


def env_beside(file: Path) -> Any:
    """What the project that an agent's file belongs to gives to initialisers. This runs the code of its flux_app.py.

    :raises ProjectUnusable: that cannot be imported
    """
    root = _root_of(file)
    app = root / f"{APP}.py"
    for name in ("__main__", APP):  # it may be what calls this
        if Path(getattr(sys.modules.get(name), "__file__", None) or "").resolve() == app:
            return getattr(sys.modules[name], "env", None)
    if not app.is_file():
        return None
    _make_importable(root)
    return getattr(_imported(app, root), "env", None)


def _root_of(file: Path) -> Path:
    root = file.resolve().parent.parent
    return root.parent if root.name == "src" else root


def _make_importable(root: Path) -> None:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def _pool(root: Path) -> str:
    return f"project:{_name_of(root)}"


def load_project(root: Path) -> Project:
    """Import the files of `agents/` or `src/agents/`, and of `workflows/` or `src/workflows/`.

    An agent is the attribute `default` or `agent` of its module and is called like its file. A workflow is the
    `@workflow` of its module, or its `async def run(ctx)`. This runs the code of the project.

    :raises ProjectUnusable: it has no agents and no workflows, or some of its files cannot be used; all are named
    """
    root = root.resolve()
    if not root.is_dir():
        raise ProjectUnusable(f"there is no folder {root}")
    _make_importable(root)
    found, faults = _Found(), []
    for kind, read in KINDS.items():
        for file in _files(root, kind):
            try:
                read(found, file.stem, _imported(file, root), root)
            except ProjectUnusable as fault:
                faults.append(f"{file.relative_to(root)}: {fault}")
    if faults:
        raise ProjectUnusable("; ".join(faults))
    if not found.agents and not found.workflows:
        raise ProjectUnusable(
            f"{root} is no project, it has no agents and no workflows: make agents/NAME.py with"
            " `default = create_agent(…)`, or let `flux init NAME` write a project"
        )
    rules = {name: found.rules.get(name) or found.rules.get(APP) for name in found.agents}
    authorize = {name: rule for name, rule in rules.items() if rule is not None}
    return Project(_name_of(root), root, found.agents, found.workflows, authorize, found.env)


def _files(root: Path, kind: str) -> list[Path]:
    """The files of a kind: the one of its name, or those of its folder, of which src/ comes first."""
    if (root / f"{kind}.py").is_file():
        return [root / f"{kind}.py"]
    folder = next((one for one in (root / "src" / kind, root / kind) if one.is_dir()), root / kind)
    return sorted(file for file in folder.glob("*.py") if not file.stem.startswith("_"))


def _name_of(root: Path) -> str:
    """The folder's name, as a queue can have it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", root.name) or DEFAULT


def _imported(file: Path, root: Path) -> ModuleType:
    """The module of a file, by its real dotted name, so that who imports it too gets the same objects."""
    parts = file.relative_to(root).with_suffix("").parts
    if not all(_IMPORTABLE.fullmatch(part) for part in parts):
        raise ProjectUnusable("Python cannot import a file of this name; use letters, digits and _")
    # In a thread, which gives back whatever the code raises, exit() too.
    with ThreadPoolExecutor(1, thread_name_prefix="import") as thread:
        importing = thread.submit(importlib.import_module, ".".join(parts))
    error = importing.exception()
    if error is not None:
        raise ProjectUnusable(f"it cannot be imported: {describe(error)}{_line_in(error, root)}") from error
    module = importing.result()
    place = getattr(module, "__file__", None)
    if place is None or not file.samefile(place):
        raise ProjectUnusable(
            f"another module is called {module.__name__} ({place or 'made in code'}); rename the file"
        )
    return module


def _line_in(error: BaseException, root: Path) -> str:
    """Where in the project an error came from."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).is_relative_to(root)]
    return f" (line {frames[-1].lineno} of {Path(frames[-1].filename).relative_to(root)})" if frames else ""


class _Found:
    """What the files of a project have brought so far."""

    def __init__(self) -> None:
        self.agents: dict[str, CreatedAgent] = {}
        self.workflows: dict[str, workflow] = {}
        self.rules: dict[str, Authorize] = {}
        self.env: Any = None

    def agent(self, name: str, module: ModuleType, root: Path) -> None:
        """The agent of a module."""
        made = next((vars(module)[one] for one in ATTRIBUTES if one in vars(module)), None)
        if not isinstance(made, CreatedAgent):
            has = "it has none" if made is None else f"it is {type(made).__name__}"
            raise ProjectUnusable(f"`default` must be what create_agent(…) returns, and {has}")
        if made.name != name:
            raise ProjectUnusable(
                f"its agent is called {made.name}: an agent is served by the name of its file; rename one of them"
            )
        self.agents[name] = made
        self.rule(name, module, root)

    def workflow(self, name: str, module: ModuleType, root: Path) -> None:
        """The workflow of a module, made of its `run` where it declares none itself."""
        own = [one for one in vars(module).values() if isinstance(one, workflow) and one.__module__ == module.__name__]
        if len(own) > 1:
            raise ProjectUnusable(f"a file is one workflow, and it has {', '.join(one.name for one in own)}")
        run: Any = getattr(module, "run", None)
        if not own and not inspect.iscoroutinefunction(run):
            raise ProjectUnusable("it has no workflow: decorate a function with @workflow, or write async def run(ctx)")
        if not NAME.fullmatch(name):
            raise ProjectUnusable("a workflow cannot have this name; use letters, digits, _ and -")
        self.workflows[name] = own[0] if own else workflow.with_options(name=name, namespace=_namespace(root))(run)

    def rule(self, name: str, module: ModuleType, root: Path) -> None:
        """What a module says about who may use an instance."""
        rule = getattr(module, "authorize", None)
        if rule is not None and not callable(rule):
            raise ProjectUnusable("`authorize` must be a function of request, agent and id")
        if rule is not None:
            self.rules[name] = rule

    def app(self, name: str, module: ModuleType, root: Path) -> None:
        """What the module of the application says for all agents: a rule, and `env`."""
        self.rule(name, module, root)
        self.env = getattr(module, "env", None)


KINDS = {"agents": _Found.agent, "workflows": _Found.workflow, APP: _Found.app}


def _namespace(root: Path) -> str:
    name = re.sub(r"[^a-z0-9_-]", "-", root.name.lower()).lstrip("-_")[:64]
    return name if NAMESPACE.fullmatch(name) else "default"
