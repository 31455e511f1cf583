"""An image built and run as a Dockerfile says, without Docker.

The base image is this machine's own file system: each stage is an overlay on it. Overlays need a
file system of their own below them, so all of it lives in a mount namespace with a tmpfs.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.faults import until

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "deploy" / "docker" / "Dockerfile"

NEEDS: Final = ("chroot", "mount", "nsenter", "setpriv", "unshare")
"""Programs; all are in Debian's packages coreutils, mount and util-linux."""


@dataclass(kw_only=True, slots=True)
class Image:
    """What a stage has become, and how it is run."""

    layers: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)


def steps_of(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, in order."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    steps = []
    for line in joined.splitlines():
        if line.strip():
            name, rest = line.split(maxsplit=1)
            steps.append((name, " ".join(rest.split())))
    return steps


def final_image(text: str) -> Image:
    """How the last stage of a Dockerfile is run, without building it."""
    image = Image()
    for name, rest in steps_of(text):
        image = Image() if name == "FROM" else _configured(image, name, rest)
    return image


def _configured(image: Image, name: str, rest: str) -> Image:
    """Carry out an instruction that changes no file."""
    match name:
        case "ENV":
            for word in shlex.split(rest):
                key, _, value = word.partition("=")
                image.env[key] = re.sub(
                    r"\$\{?(\w+)\}?", lambda m: image.env.get(m[1], os.environ.get(m[1], "")), value
                )
        case "WORKDIR":
            image.folder = rest
        case "USER":
            image.user = f"{rest}:0" if rest == "root" else rest
        case "ENTRYPOINT":
            image.entrypoint = json.loads(rest)
        case "CMD":
            image.command = json.loads(rest)
        case "HEALTHCHECK":
            image.healthcheck = json.loads(rest.partition("CMD ")[2])
        case "RUN" | "COPY" | "ARG":
            pass
        case _:
            raise AssertionError(f"{name} is not understood here")
    return image


def context_files(folder: Path, ignore: str) -> list[str]:
    """The files that a builder is sent, from the folder that is the context."""
    rules = [line for line in ignore.splitlines() if line and not line.startswith("#")]
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        # Environments and caches, which are ignored and have a hundred thousand files.
        folders[:] = [each for each in folders if not each.startswith(".")]
        found += [str(inside / each) for each in files]
    return [name for name in found if not _ignored(name, rules)]


def _ignored(name: str, rules: Sequence[str]) -> bool:
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = [str(part) for part in (Path(name), *Path(name).parents)]
        if rule.startswith(("**/", "!**/")):
            parts = list(Path(name).parts)
        if any(fnmatch.fnmatch(part, pattern) for part in parts):
            ignored = not rule.startswith("!")
    return ignored


class Workshop:
    """Builds images and runs containers of them; everything ends with it."""

    def __init__(self, folder: Path) -> None:
        """Make the namespace.

        Raises:
            RuntimeError: This machine does not allow it.
        """
        self.folder = folder
        self._count = 0
        self._images: dict[str, Image] = {}
        self.containers: list[Container] = []
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c",
             f"mount -t tmpfs tmpfs {folder} && echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self._holder.kill()
            raise RuntimeError(self._holder.communicate()[1])

    def close(self) -> None:
        for container in self.containers:
            container.kill()
        self._holder.kill()
        self._holder.communicate()

    def build(self, text: str, name: str, context: Path, files: Sequence[str]) -> Image:
        """Build what a Dockerfile says.

        Args:
            text: The Dockerfile.
            name: What further Dockerfiles call the image.
            context: The folder that COPY takes from.
            files: What of it the builder is sent.
        """
        stages: dict[str, Image] = {}
        image = Image()
        for instruction, rest in steps_of(text):
            if instruction == "FROM":
                base, _, stage = rest.partition(" AS ")
                known = self._images.get(base)
                assert known or base.startswith("python:"), f"{base} is not known"
                self._count += 1
                image = copy.deepcopy(known) if known else Image()
                image.layers = [f"{self.folder}/{self._count}", *image.layers]
                self._in(f"mkdir -p {image.layers[0]}/changes/usr/local/bin")
                if known is None:
                    self._add_python(image)
                stages[stage] = image
            elif instruction == "RUN":
                self._step(image, ["sh", "-ec", rest])
            elif instruction == "COPY":
                self._copy(image, rest, stages, context, files)
            else:
                image = _configured(image, instruction, rest)
                if instruction == "WORKDIR":
                    self._in(f"mkdir -p {image.layers[0]}/changes{rest}")
        self._images[name] = image
        return image

    def _add_python(self, image: Image) -> None:
        """Give the base image the Python of these tests, under the names that the real one has."""
        python = Path(os.path.realpath(sys.executable))
        place = f"{image.layers[0]}/root"
        script = self._mounted(image, place, writable=True)
        # It may lie in the home of this user.
        script += "".join(f"chmod a+rx {place}{folder}\n" for folder in python.parents)
        # Beside itself: Python looks for its library from the place of its program.
        for name in ("python", "python3"):
            link = f"{place}{python.parent}/{name}"
            script += f"test -e {link} || ln -s {python.name} {link}\n"
        self._in(shlex.join(["unshare", "--mount", "sh", "-ec", script]))
        folders = (python.parent, "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
        image.env["PATH"] = ":".join(map(str, folders))

    def _in(self, script: str, given: bytes = b"") -> str:
        """Run a script in the namespace."""
        command = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "sh", "-ec", script]
        done = subprocess.run(
            command, input=given, env=_environment(), capture_output=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout.decode()

    def _mounted(self, image: Image, place: str, *, writable: bool) -> str:
        """The script that mounts an image."""
        lower = [f"{layer}/changes" for layer in image.layers] + ["/"]
        own = ""
        if writable:
            own = f",upperdir={lower.pop(0)},workdir={image.layers[0]}/work"
        return (
            f"mkdir -p {place} {image.layers[0]}/work\n"
            f"mount -t overlay overlay -o lowerdir={':'.join(lower)}{own} {place}\n"
            f"mount -t proc proc {place}/proc\nmount --rbind /dev {place}/dev\n"
        )

    def _step(self, image: Image, command: Sequence[str]) -> None:
        place = f"{image.layers[0]}/root"
        inside = f"cd {shlex.quote(image.folder)}; exec " + (
            shlex.join(["env", *(f"{k}={v}" for k, v in image.env.items()), *command])
        )
        script = self._mounted(image, place, writable=True) + (
            f"exec chroot {place} {shlex.join(['sh', '-ec', inside])}"
        )
        self._in(shlex.join(["unshare", "--mount", "--pid", "--fork", "sh", "-ec", script]))

    def _copy(
        self, image: Image, rest: str, stages: Mapping[str, Image], context: Path,
        files: Sequence[str],
    ) -> None:  # fmt: skip
        words = rest.split()
        options = dict(w[2:].split("=", 1) for w in words if w.startswith("--"))
        *sources, target = [w for w in words if not w.startswith("--")]
        inside = f"{image.folder}/{target}" if not target.startswith("/") else target
        changes = f"{image.layers[0]}/changes"
        place = f"{changes}{os.path.normpath(inside)}"
        if "from" in options:
            (source,) = sources
            layer = stages[options["from"]].layers[0]
            self._in(f"mkdir -p {place}; cp -a {layer}/changes{source}/. {place}/")
            return
        for source in sources:
            sent = [f for f in files if f == source or f.startswith(f"{source}/")]
            assert sent, f"COPY {source}: the builder is not sent it; see .dockerignore"
            if sent == [source]:
                to = f"{place}/{Path(source).name}" if target in (".", "./") else place
                self._in(f"mkdir -p {Path(to).parent}; cat > {to}", (context / source).read_bytes())
                self._in(f"chmod {options.get('chmod', '644')} {to}")
                continue
            packed = subprocess.run(
                ["tar", "-c", *(f.removeprefix(f"{source}/") for f in sent)],
                cwd=context / source, capture_output=True, check=True,
            ).stdout  # fmt: skip
            self._in(f"mkdir -p {place}; tar -x --no-same-owner -C {place}", packed)

    def run(
        self, image: Image, name: str, *, command: Sequence[str] = (),
        env: Mapping[str, str] | None = None, volumes: Mapping[Path, str] | None = None,
        tmpfs: Sequence[str] = (), read_only: bool = True,
    ) -> Container:  # fmt: skip
        """Start a container.

        Args:
            image: Its image.
            name: For its log.
            command: In place of the image's own.
            env: Further variables.
            volumes: Folders of this machine, and where the container has them, read-only.
            tmpfs: Folders that can be written.
            read_only: Whether nothing else can be written.
        """
        assert read_only, "not needed so far"
        self._count += 1
        place = f"{self.folder}/{self._count}"
        script = self._mounted(image, place, writable=False)
        for folder in tmpfs:
            script += f"mount -t tmpfs -o mode=1777 tmpfs {place}{folder}\n"
        for source, target in (volumes or {}).items():
            script += (
                f"mount --bind {source} {place}{target}\nmount -o remount,bind,ro {place}{target}\n"
            )
        variables = {**image.env, **(env or {})}
        inside = [
            *privileges(image.user), "env", "--ignore-environment", f"--chdir={image.folder}",
            *(f"{key}={value}" for key, value in variables.items()),
            *image.entrypoint, *(command or image.command),
        ]  # fmt: skip
        script += f"exec chroot {place} {shlex.join(inside)}"
        log = self.folder.parent / f"{name}-{self._count}.log"
        outer = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script]
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *outer],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        container = Container(process, image, variables, log)
        self.containers.append(container)
        # Until then its processes are still the ones that prepare it.
        until(container.begun, what="the start of the container")
        return container


def _environment() -> dict[str, str]:
    """The variables of a build: how this machine reaches the package index, and no Python's."""
    return {
        n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "VIRTUAL", "UV_PRO"))
    }


def privileges(user: str) -> list[str]:
    """The command that gives up all rights, as `cap_drop: ALL` and `no-new-privileges` do."""
    uid, _, gid = user.partition(":")
    return [
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"),
        *("--bounding-set=-all", "--inh-caps=-all"),
    ]


class Container:
    """A running container."""

    def __init__(
        self, process: subprocess.Popen[bytes], image: Image, env: Mapping[str, str], log: Path
    ) -> None:
        self._process = process
        self._image = image
        self._env = env
        self.log = log

    def begun(self) -> bool:
        """Whether process 1 is the image's own, or has ended already."""
        if self._process.poll() is not None:
            return True
        found = psutil.Process(self._process.pid).children()
        return any(_cmdline(child)[:1] == self._image.entrypoint[:1] for child in found)

    @property
    def first(self) -> psutil.Process:
        """Process 1, seen from outside."""
        [child] = psutil.Process(self._process.pid).children()
        return child

    def processes(self, *words: str) -> list[psutil.Process]:
        """Its processes whose command has these words, children behind their parents."""
        return [p for p in self._all() if all(any(w in a for a in _cmdline(p)) for w in words)]

    def _all(self) -> Iterator[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from psutil.Process(self._process.pid).children(recursive=True)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `docker exec` does."""
        first = self.first.pid
        return subprocess.run(
            ["nsenter", f"--target={first}", "--mount", "--pid", "--root", "--wd",
             *privileges(self._image.user), "env", "--ignore-environment",
             *(f"{key}={value}" for key, value in self._env.items()), *command],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    @property
    def healthy(self) -> bool:
        """What the image's HEALTHCHECK says."""
        return self.execute(*self._image.healthcheck).returncode == 0

    def wait_until_healthy(self) -> None:
        def check() -> bool:
            assert self._process.poll() is None, self.text()
            return self.healthy

        try:
            until(check, 120, "health")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.text()}") from error

    def wait_for(self, text: str) -> None:
        """Wait until it has written something."""
        try:
            until(lambda: text in self.text(), what=text)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.text()}") from error

    def text(self) -> str:
        """What it has written."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Send SIGTERM to process 1; returns the exit code."""
        os.kill(self.first.pid, signal.SIGTERM)
        return self.wait()

    def wait(self, timeout: float = 60.0) -> int:
        return self._process.wait(timeout)

    def kill(self) -> None:
        """End all of it, if it still runs."""
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):
            self.first.kill()
        self._process.kill()
        self._process.wait()


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
