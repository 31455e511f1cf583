"""Fault points compiled into modules as they are imported: each await, each hand-off.

The sources stay as they are. `install` puts a finder before Python's own that compiles the
modules of the worker's, the gateway's and the producer's way from a changed syntax tree, so that
what is newly written there has its points as well.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from tests.faultpoints import injector
from tests.faultpoints.effects import Kind

ROOT: Final = Path(__file__).parents[2]

WORKER: Final = (
    "workers.*",
    "agentapi.agents.functions",
    "agentapi.agents.hooks",
    "agentapi.engine.loop",
    "agentapi.engine.model_call",
    "agentapi.engine.model_chain",
    "agentapi.engine.offers",
    "agentapi.engine.tool_calls",
    "agentapi.tools.decorator",
    "agentapi.tools.threads",
    "agentapi.admission.gate",
)
"""Modules of a turn's way through a worker."""

PRODUCER: Final = ("orchestrator.*",)
"""Modules of the producer, and of the gateway in it."""

HAND_OFFS: Final = frozenset(
    {
        "submit",
        "run_in_executor",
        "call_soon_threadsafe",
        "call_soon",
        "run_coroutine_threadsafe",
        "create_task",
    }
)
"""Methods that give work to another thread, the event loop or a new task."""

_NAME: Final = "__faults__"


def covers(pattern: str, module: str) -> bool:
    package, star, _ = pattern.partition(".*")
    return module.startswith(f"{package}.") if star else module == pattern


class _Compiler(ast.NodeTransformer):
    """Puts the points in, and keeps their names."""

    def __init__(self, module: str) -> None:
        self.points: list[str] = []
        self._scope = [module]
        self._seen: Counter[str] = Counter()

    def _visit_scope(self, node: Any) -> Any:
        self._scope.append(node.name)
        self.generic_visit(node)
        self._scope.pop()
        return node

    visit_FunctionDef = _visit_scope  # noqa: N815
    visit_AsyncFunctionDef = _visit_scope  # noqa: N815
    visit_ClassDef = _visit_scope  # noqa: N815

    def visit_Await(self, node: ast.Await) -> ast.AST:
        point = self._point(Kind.AWAIT, node.value)
        self.generic_visit(node)
        node.value = self._call("awaiting", point, [node.value], [])
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        point = self._point(Kind.AWAIT, node.iter, "for ")
        self.generic_visit(node)
        node.iter = self._call("iterating", point, [node.iter], [])
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        point = self._point(Kind.AWAIT, node.iter, "for ") if node.is_async else ""
        self.generic_visit(node)
        if node.is_async:
            node.iter = self._call("iterating", point, [node.iter], [])
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        points = [self._point(Kind.AWAIT, item.context_expr, "with ") for item in node.items]
        self.generic_visit(node)
        for item, point in zip(node.items, points, strict=True):
            item.context_expr = self._call("managing", point, [item.context_expr], [])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        handed_over = isinstance(node.func, ast.Attribute) and (
            node.func.attr in HAND_OFFS or _starts_thread(node.func)
        )
        point = self._point(Kind.HAND_OFF, node) if handed_over else ""
        self.generic_visit(node)
        if not handed_over:
            return node
        return self._call("handing", point, [node.func, *node.args], node.keywords)

    def _point(self, kind: Kind, node: ast.expr, what: str = "") -> str:
        """A name that stays the same when lines move."""
        shown = ast.unparse(node.func if isinstance(node, ast.Call) else node)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        name = f"{kind} {'.'.join(self._scope)}: {what}{shown}"
        self._seen[name] += 1
        if self._seen[name] > 1:
            name = f"{name} ({self._seen[name]})"
        self.points.append(name)
        return name

    def _call(
        self, function: str, point: str, args: list[ast.expr], keywords: list[ast.keyword]
    ) -> ast.Call:
        named = ast.Attribute(ast.Name(_NAME, ast.Load()), function, ast.Load())
        call = ast.Call(named, [ast.Constant(point), *args], keywords)
        return ast.fix_missing_locations(ast.copy_location(call, args[0]))


def _starts_thread(function: ast.Attribute) -> bool:
    """``threading.Thread(...).start``"""
    made = function.value
    return (
        function.attr == "start"
        and isinstance(made, ast.Call)
        and ast.unparse(made.func) == "threading.Thread"
    )


def compile_in(module: str, source: str, path: str) -> tuple[CodeType, list[str]]:
    """The code of a module with its points, and their names."""
    compiler = _Compiler(module)
    tree = compiler.visit(ast.parse(source, path))
    return compile(tree, path, "exec", dont_inherit=True), compiler.points


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        return compile_in(fullname, source, self.path)[0]

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, _NAME, injector)
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(covers(pattern, fullname) for pattern in (*WORKER, *PRODUCER)):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def install() -> None:
    """Compile the points into what is imported from now on."""
    early = [name for name in sys.modules for p in (*WORKER, *PRODUCER) if covers(p, name)]
    assert not early, f"imported before the fault points: {early}"
    sys.meta_path.insert(0, _Finder())


def points_in(*patterns: str) -> list[str]:
    """The names of all points that are compiled into these modules."""
    found: list[str] = []
    for pattern in patterns:
        path = pattern.removesuffix(".*").replace(".", "/")
        files = sorted((ROOT / path).rglob("*.py")) if "*" in pattern else [ROOT / f"{path}.py"]
        for file in files:
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            module = module.removesuffix(".__init__")
            found += compile_in(module, file.read_text(), str(file))[1]
    return found
