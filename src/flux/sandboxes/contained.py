"""The isolated sandbox: commands in namespaces of their own, made by bubblewrap."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from flux.errors import SandboxUnavailable
from flux.sandboxes.host import LocalSandbox
from flux.sandboxes.limits import Limits
from flux.sandboxes.processes import SHELL, Program

USER, UID = "agent", "1000"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TEMPORARY, SHARED = "/tmp", "/dev/shm"  # noqa: S108 - paths inside the sandbox

_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")

#: Of this host's /etc what programs need, and nothing that holds a password or a key.
ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts", "gai.conf", "host.conf",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "magic", "mime.types", "nsswitch.conf", "os-release",
    "pki/ca-trust", "pki/tls/certs", "protocols", "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
_NETWORK = ("hosts", "resolv.conf")
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

_PASSWD = f"{USER}:x:{UID}:{UID}:{USER}:/tmp:{SHELL}\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
_GROUP = f"{USER}:x:{UID}:\nnogroup:x:65534:\n"

#: The lowest descriptor for what is handed on: those below are used to start the command.
_FIRST_FD = 10
_PROBE_SECONDS = 10
_USERNS = (
    "allow unprivileged user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container --security-opt seccomp=unconfined)"
)


class IsolatedSandbox(LocalSandbox):
    """The `workspace` directory of this host, for commands that see nothing else of it that could be changed.

    The system's programs are there to be read; other files, other processes and, without `network`, every network
    are absent. `readable` are further directories to read. File operations are those of the local sandbox.

    :raises SandboxUnavailable: bubblewrap cannot do this here
    """

    name = "isolated"

    def __init__(
        self,
        workspace: Path | str,
        *,
        network: bool = False,
        limits: Limits | None = None,
        readable: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        hidden: Iterable[str] = (),
    ) -> None:
        problem = isolation_problem()
        if problem:
            raise SandboxUnavailable(f"an isolated sandbox cannot work here: {problem}")
        super().__init__(workspace, environment, hidden)
        if self.cwd in ("/", "/usr", "/etc", "/proc", "/dev"):
            raise NotADirectoryError(f"the workspace {self.cwd} cannot be isolated: it is a part of the system")
        kept = {name: value for name, value in self.environment.items() if name in _KEPT}
        own = {"PATH": PATH, "HOME": TEMPORARY, "USER": USER, "LOGNAME": USER, "SHELL": SHELL, "TERM": "dumb"}
        self.environment = {**kept, **own}
        self._limits, self._network = limits or Limits(), network
        readable = [os.path.realpath(one) for one in readable]
        self._options = tuple(_options(self.cwd, network, self._limits, readable, self.hidden))

    def program(self, command: str, folder: str, env: Mapping[str, str], stack: ExitStack) -> Program:
        """Bubblewrap with the command; its options and the variables are in a file that no other user can read."""
        passwd, group = _held(_PASSWD.encode(), stack), _held(_GROUP.encode(), stack)
        options = [
            *self._options,
            "--ro-bind-data", str(passwd), "/etc/passwd", "--ro-bind-data", str(group), "/etc/group",
            "--remount-ro", "/", "--chdir", folder,
            *(word for name, value in env.items() for word in ("--setenv", name, value)),
        ]  # fmt: skip
        options_fd = _held(b"".join(os.fsencode(word) + b"\0" for word in options), stack)
        argv = (_bwrap(), "--args", str(options_fd), "--", *_limited(self._limits), SHELL, "-c", command)
        return Program(argv, self.cwd, self.environment, (options_fd, passwd, group))

    def rooted(self, workspace: str) -> LocalSandbox:
        """An isolated sandbox for another directory, which takes the place of this one."""
        made = IsolatedSandbox(
            os.path.join(self.cwd, workspace), network=self._network, limits=self._limits, hidden=self.hidden
        )
        return made


@cache
def isolation_problem() -> str:
    """Why no isolated sandbox can work on this machine, and what to do; empty when one can. Takes some 20 ms, once."""
    for program, package in (("bwrap", "bubblewrap"), ("prlimit", "util-linux")):
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed; install the package {package}, or use a virtual or a local sandbox"
    with tempfile.TemporaryDirectory(prefix="flux-probe-") as folder:
        try:
            options = _options(os.path.realpath(folder), network=False, limits=Limits(), readable=())
            done = subprocess.run(
                [_bwrap(), *options, "--", *_limited(Limits()), "/bin/sh", "-c", ":"],
                capture_output=True, timeout=_PROBE_SECONDS, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bwrap cannot be run: {error}"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().replace("\n", "; ")[:300]
    return f"bwrap says {said!r}; {_USERNS}, or use a virtual or a local sandbox"


@cache
def _closes_userns() -> bool:
    """Whether this bubblewrap can forbid further user namespaces: version 0.8 and later."""
    said = subprocess.run([_bwrap(), "--version"], capture_output=True, timeout=_PROBE_SECONDS, check=False)
    digits = re.findall(r"\d+", said.stdout.decode(errors="replace"))
    return [int(digit) for digit in digits[:2]] >= [0, 8]


def processes_are_limited() -> bool:
    """Whether the kernel keeps `Limits.processes`: it counts none of root's, and before 5.14 those of all sandboxes."""
    return os.geteuid() != 0 and _kernel() >= (5, 14)


def _kernel() -> tuple[int, int]:
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int("".join(filter(str.isdigit, minor.partition("-")[0])) or 0)


def _bwrap() -> str:
    return shutil.which("bwrap", path=PATH) or "bwrap"


def _limited(limits: Limits) -> Iterator[str]:
    """The words in front of a command that limit it. Inside of the namespaces, where only its own processes count."""
    yield from ("/usr/bin/prlimit", f"--as={limits.memory}", f"--fsize={limits.file}")
    yield from (f"--nofile={limits.open_files}", "--core=0")
    if processes_are_limited():
        yield f"--nproc={limits.processes}"
    yield "--"


def _options(
    workspace: str, network: bool, limits: Limits, readable: Iterable[str], hidden: Iterable[str] = ()
) -> Iterator[str]:
    yield from ("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try")
    if _closes_userns():
        yield "--disable-userns"
    if not network:
        yield "--unshare-net"
    yield from ("--uid", UID, "--gid", UID, "--hostname", "sandbox", "--die-with-parent", "--cap-drop", "ALL")
    yield from ("--ro-bind", "/usr", "/usr")
    for folder in _SYSTEM:
        if os.path.islink(folder):
            yield from ("--symlink", os.readlink(folder), folder)
        else:
            yield from ("--ro-bind-try", folder, folder)
    for name in (*ETC, *(_NETWORK if network else ())):
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    # What root may write below /proc/sys changes the host, in any namespace: nothing of /proc can be written.
    yield from ("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev")
    size = str(limits.temporary)
    yield from ("--size", size, "--tmpfs", SHARED, "--remount-ro", "/dev", "--size", size, "--tmpfs", TEMPORARY)
    for folder in readable:
        yield from ("--ro-bind", folder, folder)
    yield from ("--bind", workspace, workspace)
    for folder in hidden:
        yield from ("--tmpfs", folder, "--remount-ro", folder)


def _held(data: bytes, stack: ExitStack) -> int:
    """A descriptor from which a program that is started can read `data`."""
    made = os.memfd_create("flux-sandbox")
    try:
        os.write(made, data)
        os.lseek(made, 0, os.SEEK_SET)
        held = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
    finally:
        os.close(made)
    stack.callback(os.close, held)
    return held
