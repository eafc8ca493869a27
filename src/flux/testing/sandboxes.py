"""What every sandbox must do, as checks that can be run against any: the bundled ones, and your own.

@pytest.mark.parametrize("name", CHECKS)
def test_contract(name: str) -> None:
    asyncio.run(check(name, MySandbox))
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from flux.sandboxes.base import Sandbox, ShellResult

__all__ = ["CHECKS", "Broken", "check"]

Open = Callable[[], Sandbox | Awaitable[Sandbox]]
Check = Callable[[Sandbox], Awaitable[None]]

#: Seconds of guard for commands that end by themselves.
GUARD = 20.0

CHECKS: dict[str, Check] = {}
"""The checks by name. Each gets a sandbox of its own, without files."""


class Broken(AssertionError):
    """A sandbox does not keep the contract; says where."""


async def check(name: str, open_sandbox: Open) -> None:
    """Run one check against a new sandbox, and close that.

    :raises Broken: it does not keep the contract
    """
    made = open_sandbox()
    sandbox = await made if inspect.isawaitable(made) else made
    try:
        await CHECKS[name](sandbox)
    finally:
        await sandbox.close()
        await sandbox.close()


def _check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def _same(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise Broken(f"{what}: {found!r}, not {wanted!r}")


def _true(what: str, holds: bool) -> None:
    if not holds:
        raise Broken(what)


async def _raises(what: str, kind: type[OSError], doing: Awaitable[Any], number: int | None = None) -> None:
    try:
        found = await doing
    except kind as error:
        if number is not None and error.errno != number:
            raise Broken(f"{what}: errno {error.errno}, not {errno.errorcode[number]}") from error
        return
    except OSError as error:
        raise Broken(f"{what}: {error!r}, not {kind.__name__}") from error
    raise Broken(f"{what}: {found!r} instead of {kind.__name__}")


async def _run(sandbox: Sandbox, command: str, **more: Any) -> ShellResult:
    return await sandbox.exec(command, **{"timeout": GUARD, **more})


async def _prints(sandbox: Sandbox, command: str, wanted: str, **more: Any) -> None:
    found = await _run(sandbox, command, **more)
    _same(f"`{command}` prints ({found.stderr.strip()})", found.stdout, wanted)


@_check
async def commands_have_exit_codes_and_two_outputs(sandbox: Sandbox) -> None:
    found = await _run(sandbox, "echo out; echo err >&2; exit 7")
    _same("exit code", found.exit_code, 7)
    _same("stdout", found.stdout, "out\n")
    _same("stderr", found.stderr, "err\n")
    _true("nothing was cut, and nothing timed out", not (found.timed_out or found.truncated))
    _same("exit code of an unknown program", (await _run(sandbox, "no-such-program-here")).exit_code, 127)
    _true("a command that cannot be parsed fails", (await _run(sandbox, "echo 'x")).exit_code not in (0, None))


@_check
async def each_command_has_a_shell_of_its_own_in_cwd(sandbox: Sandbox) -> None:
    before = sandbox.cwd
    _true("cwd is absolute", before.startswith("/"))
    await _run(sandbox, "mkdir -p sub && cd sub && export KEPT=1 && echo hi > file")
    await _prints(sandbox, "pwd; echo [$KEPT]; cat sub/file", f"{before}\n[]\nhi\n")
    _same("cwd", sandbox.cwd, before)


@_check
async def a_command_may_begin_in_another_directory(sandbox: Sandbox) -> None:
    await sandbox.mkdir("a/b")
    await _prints(sandbox, "pwd", f"{sandbox.cwd}/a/b\n", cwd="a/b")
    await _prints(sandbox, "pwd", f"{sandbox.cwd}/a\n", cwd=f"{sandbox.cwd}/a")
    await _raises("a directory that is not there", OSError, _run(sandbox, "pwd", cwd="none"))
    await _raises("a directory outside", PermissionError, _run(sandbox, "pwd", cwd=".."))


@_check
async def variables_are_given_for_one_command(sandbox: Sandbox) -> None:
    await _prints(sandbox, 'echo "[$ONE][$TWO]"', "[a b'\"$HOME\n][]\n", env={"ONE": "a b'\"$HOME\n", "TWO": ""})
    await _prints(sandbox, 'echo "[$ONE]"', "[]\n")
    for name in ("", "A=B", "A B", "1A", "A\0"):
        await _raises(f"a variable {name!r}", OSError, _run(sandbox, "true", env={name: "x"}))
    await _raises("a value with NUL", OSError, _run(sandbox, "true", env={"A": "x\0y"}))


@_check
async def commands_have_no_input(sandbox: Sandbox) -> None:
    found = await _run(sandbox, "read line; echo $?")
    _same("`read` at the end of the input", found.stdout, "1\n")


@_check
async def commands_are_any_text(sandbox: Sandbox) -> None:
    await _prints(sandbox, "echo 'hällo 👋'", "hällo 👋\n")
    await _prints(sandbox, "cat <<'END'\n$HOME `id`\nEND", "$HOME `id`\n")
    await _prints(sandbox, "", "")
    await _raises("a NUL", OSError, _run(sandbox, "echo a\0b"))
    await _raises("a lone surrogate", OSError, _run(sandbox, "echo \ud800"))


@_check
async def a_timeout_keeps_what_was_printed(sandbox: Sandbox) -> None:
    began = time.monotonic()
    found = await _run(sandbox, "echo begun; while :; do :; done", timeout=0.3)
    _true("it ends soon after its timeout", time.monotonic() - began < 10)
    _same("timed_out and exit_code", (found.timed_out, found.exit_code), (True, None))
    _same("stdout", found.stdout, "begun\n")
    await _prints(sandbox, "echo usable", "usable\n")


@_check
async def a_cancel_ends_the_command(sandbox: Sandbox) -> None:
    begun = asyncio.Event()
    command = "echo begun; while :; do :; done; echo no > late"
    task = asyncio.create_task(_run(sandbox, command, on_output=lambda text: begun.set()))
    async with asyncio.timeout(GUARD):
        await begun.wait()
    task.cancel()
    async with asyncio.timeout(GUARD):
        await asyncio.wait([task])
    _true("the task is cancelled", task.cancelled())
    await _prints(sandbox, "ls; echo usable", "usable\n")


@_check
async def output_comes_as_it_is_printed(sandbox: Sandbox) -> None:
    seen: list[str] = []
    first, release = asyncio.Event(), "release"

    def see(text: str) -> None:
        seen.append(text)
        first.set()

    waiting = f"echo one; while [ ! -e {release} ]; do :; done; echo two >&2"
    task = asyncio.create_task(_run(sandbox, waiting, on_output=see))
    async with asyncio.timeout(GUARD):
        await first.wait()
        await sandbox.write(release, b"")
        await task
    _same("what was seen", "".join(seen), "one\ntwo\n")


@_check
async def much_output_is_cut_in_the_middle(sandbox: Sandbox) -> None:
    found = await _run(sandbox, "echo first; seq 1 20000; echo last", max_output_bytes=10_000)
    _true("it says that it is cut", found.truncated)
    _true("it is short", len(found.stdout) < 11_000)
    _true("its begin is there", found.stdout.startswith("first\n1\n2\n"))
    _true("its end is there", found.stdout.endswith("20000\nlast\n"))


@_check
async def output_that_is_no_text_becomes_text(sandbox: Sandbox) -> None:
    found = await _run(sandbox, r"printf 'a\xff\xc3b\0c'")
    _true(f"{found.stdout!r} is text", found.stdout.startswith("a\ufffd") and "\0" not in found.stdout)


@_check
async def nothing_goes_on_after_the_end(sandbox: Sandbox) -> None:
    await _run(sandbox, "(while [ ! -e stop ]; do echo x >> growing; done) & sleep 0.05; echo done", timeout=1)
    size = (await sandbox.stat("growing")).size if await sandbox.exists("growing") else 0
    await _run(sandbox, "sleep 0.1")
    after = (await sandbox.stat("growing")).size if await sandbox.exists("growing") else 0
    _same("the size of what a background command wrote", after, size)


@_check
async def commands_run_beside_each_other_and_the_loop_goes_on(sandbox: Sandbox) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    command = "while [ ! -e {1} ]; do :; done; echo x > {0}"
    pairs = [command.format("a", "b"), "echo x > b; " + command.format("c", "a")]
    async with asyncio.timeout(GUARD):
        await asyncio.gather(*(_run(sandbox, one) for one in pairs), _run(sandbox, "sleep 0.2"))
    ticking.cancel()
    _true(f"the event loop went on ({ticks} ticks)", ticks >= 5)


@_check
async def files_are_bytes(sandbox: Sandbox) -> None:
    for data in (b"", b"text\n", bytes(range(256)) * 300):
        await sandbox.write("deep/in/here.bin", data)
        _same("what was written is read", await sandbox.read("deep/in/here.bin"), data)
    _same("by another name", await sandbox.read(f"{sandbox.cwd}/deep/../deep//in/./here.bin"), data)
    _same("with room", len(await sandbox.read("deep/in/here.bin", limit=len(data))), len(data))
    await _raises("too large", OSError, sandbox.read("deep/in/here.bin", limit=len(data) - 1), errno.EFBIG)


@_check
async def commands_and_verbs_see_the_same_files(sandbox: Sandbox) -> None:
    await sandbox.write("a file", b"by verb\n")
    await _prints(sandbox, "cat 'a file'; echo by shell > b", "by verb\n")
    _same("what a command wrote", await sandbox.read("b"), b"by shell\n")
    await _run(sandbox, "rm b")
    _same("what a command removed", await sandbox.exists("b"), False)


@_check
async def names_are_any_text(sandbox: Sandbox) -> None:
    for name in ("-rf", "a b", "ä👋", "'\"$(x)`", "*", "~", "..."):
        await sandbox.write(name, name.encode())
        _same(f"the file {name!r}", await sandbox.read(name), name.encode())
        _true(f"{name!r} is listed", name in await sandbox.list("."))
        await sandbox.remove(name)
    for name in ("a\0b", "\ud800"):
        await _raises(f"the name {name!r}", OSError, sandbox.write(name, b""))
        await _raises(f"the name {name!r}", OSError, sandbox.read(name))


@_check
async def files_that_are_not_there(sandbox: Sandbox) -> None:
    await sandbox.write("file", b"x")
    await _raises("read", FileNotFoundError, sandbox.read("none"))
    await _raises("stat", FileNotFoundError, sandbox.stat("none/deeper"))
    await _raises("list", FileNotFoundError, sandbox.list("none"))
    await _raises("remove", FileNotFoundError, sandbox.remove("none"))
    await _raises("read below a file", NotADirectoryError, sandbox.read("file/x"))
    await _raises("write below a file", NotADirectoryError, sandbox.write("file/x", b""))
    _same("exists", [await sandbox.exists(one) for one in ("none", "file/x", "file", ".")], [False, False, True, True])


@_check
async def directories_are_no_files(sandbox: Sandbox) -> None:
    await sandbox.mkdir("folder")
    await sandbox.write("file", b"x")
    await _raises("read a directory", IsADirectoryError, sandbox.read("folder"))
    await _raises("write a directory", IsADirectoryError, sandbox.write("folder", b""))
    await _raises("list a file", NotADirectoryError, sandbox.list("file"))
    await _raises("make a directory of a file", OSError, sandbox.mkdir("file"))


@_check
async def stat_says_what_is_there(sandbox: Sandbox) -> None:
    await sandbox.write("folder/file", b"12345")
    await _run(sandbox, "ln -s folder/file link; ln -s folder to-folder; ln -s nowhere dangling")
    file, link = await sandbox.stat("folder/file"), await sandbox.stat("link")
    _same("a file", (file.is_file, file.is_directory, file.is_symbolic_link, file.size), (True, False, False, 5))
    _true("mtime is in seconds since the epoch", 1_600_000_000 < file.mtime < 5_000_000_000)
    _same("a link to it", (link.is_file, link.is_symbolic_link, link.size), (True, True, 5))
    folder = await sandbox.stat("to-folder")
    _same("a link to a directory", (folder.is_directory, folder.is_symbolic_link), (True, True))
    _same("a link without a target", await sandbox.exists("dangling"), False)
    await _raises("a link without a target", FileNotFoundError, sandbox.stat("dangling"))


@_check
async def lists_are_sorted(sandbox: Sandbox) -> None:
    for name in ("b", "a", "c/x", ".hidden"):
        await sandbox.write(name, b"")
    _same("names", await sandbox.list("."), (".hidden", "a", "b", "c"))
    _same("names below", await sandbox.list("c"), ("x",))


@_check
async def mkdir_makes_parents_and_may_be_repeated(sandbox: Sandbox) -> None:
    await sandbox.mkdir("a/b/c")
    await sandbox.write("a/b/c/file", b"kept")
    await sandbox.mkdir("a/b/c")
    _same("what is in it", await sandbox.list("a/b/c"), ("file",))


@_check
async def remove_removes_what_is_named(sandbox: Sandbox) -> None:
    await sandbox.write("full/file", b"x")
    await sandbox.mkdir("empty")
    await _run(sandbox, "ln -s full link")
    await _raises("a directory that is not empty", OSError, sandbox.remove("full"))
    await sandbox.remove("link")
    await sandbox.remove("empty")
    _same("what is left", await sandbox.list("."), ("full",))
    await sandbox.remove("full", recursive=True)
    _same("what is left", await sandbox.list("."), ())
    await _raises("the workspace itself", PermissionError, sandbox.remove(".", recursive=True))


@_check
async def paths_stay_in_the_workspace(sandbox: Sandbox) -> None:
    for path in ("..", "../x", "a/../../x", "/", "/etc/passwd", f"{sandbox.cwd}/../x", f"{sandbox.cwd}x/y"):
        for doing in (sandbox.read, sandbox.stat, sandbox.list, sandbox.mkdir, sandbox.remove):
            await _raises(f"{doing.__name__}({path!r})", PermissionError, doing(path))
        await _raises(f"write({path!r})", PermissionError, sandbox.write(path, b"x"))


@_check
async def links_stay_in_the_workspace(sandbox: Sandbox) -> None:
    await sandbox.write("sub/file", b"inside")
    await _run(sandbox, "ln -s /etc/passwd file; ln -s / root; ln -s ../.. up; ln -s sub/file ok; ln -s file twice")
    _same("a link inside", await sandbox.read("ok"), b"inside")
    for path in ("file", "twice", "root/etc/passwd", "up/x", "root"):
        await _raises(f"read({path!r})", PermissionError, sandbox.read(path))
        await _raises(f"stat({path!r})", PermissionError, sandbox.stat(path))
        await _raises(f"write({path!r})", PermissionError, sandbox.write(path, b"x"))
    await _raises("remove through a link", PermissionError, sandbox.remove("root/etc", recursive=True))
    await _raises("list through a link", PermissionError, sandbox.list("root/etc"))
    await sandbox.remove("root")
    _same("removing a link leaves its target", "root" in await sandbox.list("."), False)


@_check
async def links_that_go_round_are_errors(sandbox: Sandbox) -> None:
    await _run(sandbox, "ln -s b a; ln -s a b")
    await _raises("read", OSError, sandbox.read("a"))
    await _raises("write", OSError, sandbox.write("a/x", b""))
