"""`agentapi worker` and `agentapi init` as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from agentapi import ConfigurationError, Settings, load_settings
from agentapi.testing import assert_completed
from orchestrator import Orchestrator
from orchestrator.broker import producer_app
from orchestrator.stack.worker_command import refuse_shadowed_packages
from tests.faults import until

AGENTAPI = (sys.executable, "-m", "orchestrator.cli.main")
ROOT = str(Path(__file__).parents[2])


def environment(url: str, **variables: str) -> dict[str, str]:
    return {**os.environ, "AGENTAPI_REDIS_URL": url, **variables}


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    """A folder with a module of agents."""
    define(tmp_path, "first")
    return tmp_path


def define(folder: Path, name: str) -> None:
    text = f'from agentapi import Agent\n\nagent = Agent(name="{name}", provider="offline")\n'
    (folder / "mine.py").write_text(text)


@contextmanager
def worker(folder: Path, url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a folder; killed with its processes if it is still there at the end."""
    log = (folder / "worker.log").open("w")
    process = subprocess.Popen(
        [*AGENTAPI, "worker", *options],
        env=environment(url, PYTHONPATH=ROOT),
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )
    try:
        yield process
    finally:
        ours = [process.pid, *(p.pid for p in processes_in(folder))]
        for pid in ours:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()
        log.close()


def processes_in(folder: Path) -> list[psutil.Process]:
    """Worker processes and watchdogs that run in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and "celery" in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def answering(settings: Settings) -> set[str]:
    app = producer_app(settings)
    try:
        replies = app.control.ping(timeout=0.5)
    finally:
        app.close()
    return {name.partition("@")[0] for reply in replies for name in reply}


def wait_for(settings: Settings, *names: str) -> None:
    until(lambda: answering(settings) == set(names), what=f"an answer of {names}")


def pid_of(folder: Path, name: str) -> int:
    """The worker, not its watchdog, which is its child."""
    named = [p for p in processes_in(folder) if f"{name}@%h" in p.cmdline()]
    pids = {process.pid for process in named}
    return next(process.pid for process in named if process.ppid() not in pids)


def ask(settings: Settings, agent: str) -> None:
    with Orchestrator(settings) as orchestrator:
        turn = orchestrator.enqueue(agent, "hello")
        turn.result(timeout=150)
        assert_completed(turn, "You said: hello")


def test_one_worker_takes_the_place_of_the_command(agents: Path, redis_url: str) -> None:
    settings = load_settings(redis_url=redis_url)
    options = ("--agents", "mine", "--name", "one", "--concurrency", "3", "--log-level", "debug")
    with worker(agents, redis_url, *options) as process:
        wait_for(settings, "one")
        ask(settings, "first")
        assert pid_of(agents, "one") == process.pid
        app = producer_app(settings)
        (stats,) = app.control.inspect(timeout=150, limit=1).stats().values()
        app.close()
        assert stats["pool"]["max-concurrency"] == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(150) == 0
    assert " DEBUG " in (agents / "worker.log").read_text()


def test_flags_behind_two_dashes_are_celerys(agents: Path, redis_url: str) -> None:
    with worker(agents, redis_url, "--agents", "mine", "--", "--help") as process:
        assert process.wait(150) == 0
    assert "--prefetch-multiplier" in (agents / "worker.log").read_text()


def test_several_processes_are_kept_running_and_end_together(agents: Path, redis_url: str) -> None:
    settings = load_settings(redis_url=redis_url)
    options = ("--agents", "mine", "--name", "w", "--processes", "2")
    with worker(agents, redis_url, *options) as process:
        wait_for(settings, "w-1", "w-2")
        killed = pid_of(agents, "w-1")
        os.kill(killed, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(killed))
        wait_for(settings, "w-1", "w-2")
        assert pid_of(agents, "w-1") != killed
        ask(settings, "first")
        process.send_signal(signal.SIGINT)
        assert process.wait(150) == 0
        # The watchdogs end behind their workers.
        until(lambda: not processes_in(agents))
    log = (agents / "worker.log").read_text()
    assert "fleet.ended worker=w-1 exit_code=-9" in log
    assert "fleet.stopping signal=SIGINT processes=2" in log
    assert "fleet.killed" not in log


def test_workers_end_with_a_command_that_is_killed(agents: Path, redis_url: str) -> None:
    options = ("--agents", "mine", "--processes", "2")
    with worker(agents, redis_url, *options) as process:
        wait_for(load_settings(redis_url=redis_url), "worker-1", "worker-2")
        process.kill()
        process.wait()
        until(lambda: not processes_in(agents))


def test_a_worker_that_cannot_start_ends_the_command(agents: Path, redis_url: str) -> None:
    with worker(agents, redis_url, "--agents", "nonesuch", "--processes", "2") as process:
        assert process.wait(150) == 1
    log = (agents / "worker.log").read_text()
    assert "AGENTAPI_AGENTS names 'nonesuch', which cannot be imported" in log
    assert "Traceback" not in log


def test_a_module_with_a_syntax_error_is_one_line(agents: Path, redis_url: str) -> None:
    (agents / "mine.py").write_text("agent = ")
    done = command(agents, "worker", "--agents", "mine", AGENTAPI_REDIS_URL=redis_url)
    assert done.returncode == 1
    said = "which cannot be imported: SyntaxError at mine.py line 1: invalid syntax"
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_change_restarts_the_worker(agents: Path, redis_url: str) -> None:
    settings = load_settings(redis_url=redis_url)
    log = agents / "worker.log"
    environment = agents / "venv"
    packages = environment / "lib" / "python3" / "site-packages"
    for each in (packages, environment / "bin"):
        each.mkdir(parents=True)
    (environment / "pyvenv.cfg").touch()
    with worker(agents, redis_url, "--agents", "mine", "--reload") as process:
        wait_for(settings, "worker")
        ask(settings, "first")
        # Before the change of the agents: it would be the first that the log names.
        (packages / "six.py").write_text("x = 1")
        (environment / "bin" / "activate_this.py").touch()
        (agents / "mine.py").write_text("agent = ")
        until(lambda: "waits_for=change" in log.read_text())
        define(agents, "second")
        ask(settings, "second")
        process.send_signal(signal.SIGTERM)
        assert process.wait(150) == 0
    assert "fleet.restarting changed=mine.py" in log.read_text()
    for installed in ("six.py", "activate_this.py"):
        assert installed not in log.read_text()


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AGENTAPI, *arguments],
        env={**os.environ, "PYTHONPATH": ROOT, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=folder,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--log-level", "loud", "--agents", "mine"), "AGENTAPI_LOG_LEVEL"),
        ((), "there are no agents to run: name their modules with --agents"),
        (("--agents", "mine", "--", "-nother"), "-n cannot be passed to Celery: use --name"),
        (("--agents", "mine", "--", "--detach"), "--detach cannot be passed to Celery"),
    ],
)
def test_bad_options_are_refused(agents: Path, options: tuple[str, ...], said: str) -> None:
    done = command(agents, "worker", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["workers/__init__.py", "workers.py"])
def test_a_package_that_hides_ours_is_named(agents: Path, place: str) -> None:
    (agents / place).parent.mkdir(exist_ok=True)
    (agents / place).touch()
    done = command(agents, "worker", "--agents", "mine")
    assert done.returncode == 2
    hiding = agents / place.partition("/")[0]
    assert f"{hiding} would be imported in place of agentapi's own package 'workers'" in done.stderr
    assert "checkout" not in done.stderr


def test_a_checkout_that_hides_the_installed_package_is_recognised(agents: Path) -> None:
    for package in ("agentapi", "workers", "orchestrator"):
        (agents / package).mkdir()
        (agents / package / "__init__.py").touch()
    with pytest.raises(ConfigurationError, match="this looks like agentapi's own checkout: run it"):
        refuse_shadowed_packages(agents)


def test_the_first_project_runs(tmp_path: Path, redis_url: str) -> None:
    folder = tmp_path / "new"
    assert "wrote agents.py" in command(tmp_path, "init", "new").stdout
    tested = run(folder, redis_url, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout
    with worker(folder, redis_url) as process:
        wait_for(load_settings(redis_url=redis_url), "worker")
        default = run(folder, redis_url, "producer.py")
        said = run(folder, redis_url, "producer.py", "good", "morning")
        process.send_signal(signal.SIGTERM)
        assert process.wait(150) == 0
    assert "Order 7 was shipped on Monday." in default.stdout, default.stderr
    assert said.stdout == "You said: good morning\n"


def run(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(url, PYTHONPATH=ROOT),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=folder,
    )


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "producer.py").write_text("mine")
    done = command(tmp_path, "init")
    assert done.returncode == 2
    assert "already contains producer.py" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["producer.py"]
    assert (tmp_path / "producer.py").read_text() == "mine"
