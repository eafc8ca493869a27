"""The limits of tools/house.py, each with a file that breaks it and one that does not."""

from collections.abc import Callable, Iterable

import pytest

from tools.house import (
    Source,
    broad_excepts,
    growing_file,
    import_cycle,
    late_imports,
    leaks,
    long_file,
    long_functions,
    problems,
    source,
    stub_words,
)

pytestmark = pytest.mark.behaviour("house:limits:checked")

Check = Callable[[Source], Iterable[str]]


def lines(count: int) -> str:
    return "x = 1\n" * count


def function(count: int) -> str:
    return "def f():\n" + "    x = 1\n" * (count - 1)


@pytest.mark.parametrize(
    ("check", "text", "path"),
    [
        (long_functions, function(61), "tests/a.py"),
        (long_functions, "async " + function(61), "src/flux/a.py"),
        (long_file, lines(501), "tools/a.py"),
        (growing_file, lines(401), "src/flux/a.py"),
        (late_imports, "def f():\n    import os  # noqa: PLC0415", "src/flux/a.py"),
        (stub_words, "x = 1  # TODO", "src/flux/a.py"),
        (stub_words, "raise NotImplementedError", "src/flux/a.py"),
    ],
)
def test_a_file_over_a_limit_is_refused(check: Check, text: str, path: str) -> None:
    (problem,) = check(source(path, text))
    assert problem.startswith(path)


@pytest.mark.parametrize(
    ("check", "text", "path"),
    [
        (long_functions, function(60), "src/flux/a.py"),
        (long_file, lines(500), "src/flux/a.py"),
        (growing_file, lines(400), "src/flux/a.py"),
        (growing_file, lines(501), "src/flux/a.py"),
        (late_imports, "def f():\n    import os", "src/flux/surfaces/cli/main.py"),
        (late_imports, "def f():\n    import os", "tests/a.py"),
        (late_imports, "import os", "src/flux/a.py"),
        (stub_words, "x = 1  # TODO", "tests/a.py"),
        (stub_words, "def todo(): ...", "src/flux/a.py"),
    ],
)
def test_a_file_within_the_limits_is_accepted(check: Check, text: str, path: str) -> None:
    assert list(check(source(path, text))) == []


def catching(clause: str) -> Source:
    return source("src/flux/a.py", f"try: ...\n{clause}\n    ...")


@pytest.mark.parametrize(
    "clause",
    [
        "except:",
        "except Exception:",
        "except (ValueError, BaseException):  # noqa: BLE001",
        "except Exception:  # noqa: BLE001 - because",
    ],
)
def test_a_broad_except_needs_a_reason(clause: str) -> None:
    (problem,) = broad_excepts([catching(clause)])
    assert problem.startswith("src/flux/a.py:2: broad except without")


@pytest.mark.parametrize("clause", ["except ValueError:", "except Exception:  # noqa: BLE001 - outermost handler"])
def test_a_named_or_reasoned_except_is_accepted(clause: str) -> None:
    assert list(broad_excepts([catching(clause)])) == []


def test_reasons_do_not_help_against_the_eleventh() -> None:
    reasoned = catching("except Exception:  # noqa: BLE001 - outermost handler")
    assert list(broad_excepts([reasoned] * 10)) == []
    assert list(broad_excepts([reasoned] * 11)) == ["11 broad excepts, 10 are allowed"]


def package(**modules: str) -> list[Source]:
    return [source(f"src/flux/{name.replace('__', '/')}.py", text) for name, text in modules.items()]


@pytest.mark.parametrize(
    "modules",
    [
        {"a": "import flux.b", "b": "from flux import a"},
        {"a": "from flux.b import x", "b": "from .a import y"},
        {"a": "from .c import d", "c/d": "from ..a import x", "c/__init__": ""},
        {"a": "class A:\n    from flux import b", "b": "import flux.a"},
    ],
)
def test_an_import_cycle_is_refused(modules: dict[str, str]) -> None:
    (problem,) = import_cycle(package(**modules))
    assert problem.startswith("import cycle: flux.")


@pytest.mark.parametrize(
    "modules",
    [
        {},
        {"a": "from flux.b import x", "b": "import os"},
        {"a": "import flux.b", "b": "def f():\n    import flux.a"},
        {"a": "import flux.b", "b": "if TYPE_CHECKING:\n    import flux.a"},
        {"c/__init__": "from flux.c.d import x", "c/d": "from flux.c import e", "c/e": ""},
    ],
)
def test_a_tree_of_imports_is_accepted(modules: dict[str, str]) -> None:
    assert list(import_cycle(package(**modules))) == []


def test_every_limit_is_among_the_problems() -> None:
    text = f"{function(501)}    import os  # TODO\n    try: ...\n    except: ..."
    assert len(list(problems([source("src/flux/a.py", text)]))) == len(
        ["function", "file", "late import", "stub word", "except"]
    )


@pytest.mark.behaviour("house:files:portable")
@pytest.mark.parametrize("leak", ["/".join(["", "root", "x"]), "https://" + "pypi" + ".org/simple"])
def test_a_machine_path_or_registry_is_refused(leak: str) -> None:
    assert len(list(leaks("a.md", f"fine\nsee {leak}"))) == 1


@pytest.mark.behaviour("house:files:portable")
@pytest.mark.parametrize("text", ["/workspace/a", "/home/user/a", "pypi", "\0 binary " + "pypi" + ".org"])
def test_an_ordinary_text_is_accepted(text: str) -> None:
    assert list(leaks("a.md", text)) == []
