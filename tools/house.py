"""The house limits that ruff and mypy do not know; `./dev check` runs this file.

Size of functions and files, import cycles, imports inside functions, broad excepts, stub words,
and names of registries or paths of somebody's machine in any file that is, or is about to be, tracked.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FUNCTION_LINES = 60
FILE_LINES, FILE_LINES_AT_MOST = 400, 500
BROAD_EXCEPTS = 10

MAY_IMPORT_LATE = re.compile(
    r"src/flux/(__init__\.py|models/providers\.py|store/migrations/__init__\.py|tools/mcp\.py|surfaces/cli/.*)"
)
REASONED = re.compile(r"#\s*noqa:\s*BLE001\W+\w+\W+\w+")
STUB_WORDS = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
LEAKS = re.compile(
    r"""
    \b(?: pypi\.org | pythonhosted\.org | registry\.npmjs\.org | registry\.yarnpkg\.com ) \b
    | (?<![\w.]) / (?: root | work | Users/\w+ | home/(?!user\b)\w+ ) /
    """,
    re.VERBOSE,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Import = ast.Import | ast.ImportFrom


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root with forward slashes, its text, its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def in_src(self) -> bool:
        """Whether it belongs to the package, not to tests or tools."""
        return self.path.startswith("src/")

    @property
    def module(self) -> str:
        """The name it is imported by."""
        return self.path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def source(path: str, text: str) -> Source:
    """Parse a file; raises SyntaxError."""
    return Source(path, text, ast.parse(text, path))


def long_functions(file: Source) -> Iterator[str]:
    """Find functions over the limit, docstring included."""
    for node in ast.walk(file.tree):
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{file.path}:{node.lineno}: {node.name}: {lines} lines, {FUNCTION_LINES} are allowed"


def long_file(file: Source) -> Iterator[str]:
    """Find a file over the hard limit."""
    lines = len(file.text.splitlines())
    if lines > FILE_LINES_AT_MOST:
        yield f"{file.path}: {lines} lines, {FILE_LINES_AT_MOST} are allowed"


def growing_file(file: Source) -> Iterator[str]:
    """Find a file between the limit to aim at and the hard one."""
    lines = len(file.text.splitlines())
    if FILE_LINES < lines <= FILE_LINES_AT_MOST:
        yield f"{file.path}: {lines} lines, aim at {FILE_LINES}"


def late_imports(file: Source) -> Iterator[str]:
    """Find imports inside functions of the package, noqa or not."""
    if not file.in_src or MAY_IMPORT_LATE.fullmatch(file.path):
        return
    functions = [node for node in ast.walk(file.tree) if isinstance(node, Function)]
    late = {node.lineno for function in functions for node in ast.walk(function) if isinstance(node, Import)}
    yield from (f"{file.path}:{line}: import inside a function" for line in sorted(late))


def stub_words(file: Source) -> Iterator[str]:
    """Find marks of unfinished work in the package."""
    for number, line in enumerate(file.text.splitlines(), 1):
        if file.in_src and (found := STUB_WORDS.search(line)):
            yield f"{file.path}:{number}: {found[0]}"


def broad_excepts(files: Iterable[Source]) -> Iterator[str]:
    """Find broad excepts that give no reason, and say so when there are too many in all."""
    count = 0
    for file in files:
        lines = file.text.splitlines()
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
                count += 1
                if not REASONED.search(lines[node.lineno - 1]):
                    yield f"{file.path}:{node.lineno}: broad except without `# noqa: BLE001 - the reason`"
    if count > BROAD_EXCEPTS:
        yield f"{count} broad excepts, {BROAD_EXCEPTS} are allowed"


def is_broad(caught: ast.expr | None) -> bool:
    """Tell whether an except clause catches (nearly) everything."""
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(
        name is None or (isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"}) for name in names
    )


def import_cycle(files: Iterable[Source]) -> Iterator[str]:
    """Find one cycle among the imports that run when the package's modules are imported."""
    package = {file.module: file for file in files if file.in_src}
    graph = {name: set(imported(file, package.keys())) - {name} for name, file in package.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"import cycle: {' <- '.join(error.args[1])}"


def imported(file: Source, known: Iterable[str]) -> Iterator[str]:
    """Yield the known modules that a module imports at its top level."""
    for node in run_at_import(file.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(file, node)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                if submodule in known or base in known:
                    yield submodule if submodule in known else base


def absolute(file: Source, node: ast.ImportFrom) -> str:
    """Return the full name of the module that a from-import names."""
    if not node.level:
        return node.module or ""
    parts = file.module.split(".")
    ups = node.level - file.path.endswith("/__init__.py")
    return ".".join([*parts[: len(parts) - ups], *filter(None, [node.module])])


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs on import: all but function bodies and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.Lambda) or is_for_types(child):
            continue
        yield child
        yield from run_at_import(child)


def is_for_types(node: ast.AST) -> bool:
    """Tell whether this is `if TYPE_CHECKING`."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def leaks(path: str, text: str) -> Iterator[str]:
    """Find registry hosts and paths of a machine; a file that is not text has none."""
    if "\0" in text:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if found := LEAKS.search(line):
            yield f"{path}:{number}: {found[0]} belongs to one machine or registry"


def problems(files: list[Source]) -> Iterator[str]:
    """Yield what is wrong with the Python files."""
    for file in files:
        for check in (long_functions, long_file, late_imports, stub_words):
            yield from check(file)
    yield from broad_excepts(files)
    yield from import_cycle(files)


def project_files(root: Path) -> dict[str, str]:
    """Return the text of each file that is tracked or would be; raises CalledProcessError outside git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    paths = sorted(set(listed.split("\0")[:-1]))
    return {
        path: (root / path).read_text(encoding="utf-8", errors="replace") for path in paths if (root / path).is_file()
    }


def python_files(texts: dict[str, str]) -> list[Source]:
    """Parse those of the files that are Python."""
    return [source(path, text) for path, text in texts.items() if path.endswith(".py") or path == "dev"]


def main() -> int:
    """Check the project; print what is wrong and return 1 if anything is."""
    texts = project_files(Path(__file__).parents[1])
    files = python_files(texts)
    found = [*problems(files), *(leak for path, text in texts.items() for leak in leaks(path, text))]
    for line in (*(warning for file in files for warning in growing_file(file)), *found):
        print(line)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
