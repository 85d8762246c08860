"""Runs the tests of a module against each of its mutants, in processes forked after everything has been imported.

A mutant within a function replaces the code of the imported function. One that takes effect at import (a constant, a
class body, a default value) is tried by a process that imports the changed module, and everything of ours with it.
"""

import ast
import gc
import importlib.abc
import importlib.machinery
import inspect
import os
import select
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import _lru_cache_wrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, cast

import hypothesis
import pytest
from _pytest.runner import runtestprotocol
from sqlmodel import SQLModel

from tests.mutation.mutants import Mutant, mutants

Line = tuple[str, int]
"""File and number."""

KILLED, SURVIVED = 1, 0
PYTEST_OPTIONS = (
    "-p no:cacheprovider",
    "-p no:unraisableexception",  # the object that complains when it is collected may be of another test
    "--assert=plain",
    "-o tmp_path_retention_policy=none",
    "-o faulthandler_timeout=0",
    "-o timeout=60",
)
SLOWEST_FACTOR, SLOWEST_SECONDS = 5, 20.0
"""A mutant whose tests take so many times as long as without it, and so many seconds on top, hangs: it is killed."""


@dataclass(slots=True)
class Result:
    """The mutants of one module: how many there are, and those that no test noticed."""

    module: Path
    count: int = 0
    survivors: list[str] = field(default_factory=list)


def run(modules: Sequence[Path], tests: Sequence[str]) -> list[Result]:
    """Try every mutant of `modules` on those tests that execute its lines; `tests` are arguments of pytest.

    Raises RuntimeError if these tests fail without a mutant.
    """
    with open(os.dup(1), "w", buffering=1) as shown, _own_folder(), _quiet():
        session = _Session(modules, lambda line: print(line, file=shown))
        status = pytest.main(_arguments(tests), plugins=[session])
    if session.failed or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"the tests fail without a mutant: {session.failed or status}")
    return session.results


class _Session:
    """A pytest plugin in place of the loop that runs tests: once to see which lines each executes, then for mutants."""

    def __init__(self, modules: Sequence[Path], say: Callable[[str], None]) -> None:
        self.modules, self.say = modules, say
        self.results: list[Result] = []
        self.failed = ""
        self.lines: dict[pytest.Item, set[Line]] = {}
        self.seconds: dict[pytest.Item, float] = {}
        self.functions: defaultdict[tuple[str, str], list[FunctionType]] = defaultdict(list)
        """By file and qualified name."""
        self.caches: list[_lru_cache_wrapper[Any]] = []
        """Of functions of the modules. A result that is kept would hide what the function does."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items
        paths = {str(module.resolve()) for module in self.modules}
        for found in gc.get_objects():
            if isinstance(found, FunctionType) and found.__code__.co_filename in paths:
                self.functions[found.__code__.co_filename, found.__code__.co_qualname].append(found)
            elif isinstance(found, _lru_cache_wrapper) and inspect.unwrap(found).__code__.co_filename in paths:
                self.caches.append(found)
        for item in items:
            self._clear_caches()
            began = time.perf_counter()
            with _recorded(paths) as self.lines[item]:
                passed = _passes(item)
            self.seconds[item] = time.perf_counter() - began
            if not passed:
                self.failed = item.nodeid
                return True
        self._clear_caches()
        # The children's collector writes to none of these objects, so that their memory stays shared.
        gc.freeze()
        # Unchanged code passes in a child, too: what fails there later is the mutant's doing.
        module = self.modules[0]
        unchanged = compile(module.read_text(), str(module.resolve()), "exec")
        for at_import in (False, True):
            if self._is_killed(module, "", at_import, unchanged, items):
                self.failed = f"in a forked process ({'with' if at_import else 'without'} imports)"
                return True
        self.results = [self._tried(module) for module in self.modules]
        return True

    def _tried(self, module: Path) -> Result:
        self.say(str(module))
        result = Result(module)
        path = str(module.resolve())
        tree = ast.parse(module.read_text(), path)
        for mutant in mutants(tree):
            result.count += 1
            code = compile(ast.fix_missing_locations(tree), path, "exec")
            if not self._is_killed(module, mutant.function, not mutant.function, code, self._touching(path, mutant)):
                result.survivors.append(mutant.key)
                self.say(f"  survives, line {mutant.lines[0]}: {mutant.key}")
        return result

    def _clear_caches(self) -> None:
        for cache in self.caches:
            cache.cache_clear()

    def _touching(self, path: str, mutant: Mutant) -> list[pytest.Item]:
        """The tests that execute the mutant, the fastest first. What takes effect at import, all execute."""
        wanted = {(path, line) for line in range(mutant.lines[0], mutant.lines[1] + 1)}
        touching = [item for item, lines in self.lines.items() if not mutant.function or lines & wanted]
        return sorted(touching, key=self.seconds.__getitem__)

    def _is_killed(
        self, module: Path, function: str, at_import: bool, code: CodeType, items: Sequence[pytest.Item]
    ) -> bool:
        if not items:
            return False
        limit = SLOWEST_SECONDS + SLOWEST_FACTOR * sum(self.seconds[item] for item in items)
        if at_import:
            return _in_a_child(lambda: _run_imported(module, code, items), limit)
        functions = self.functions[str(module.resolve()), function]
        return _in_a_child(lambda: _run_in_place(functions, code, items), limit)


def _run_in_place(functions: Sequence[FunctionType], code: CodeType, items: Sequence[pytest.Item]) -> int:
    changed = {(new.co_qualname, new.co_firstlineno): new for new in _functions_in(code)}
    for function in functions:
        old = function.__code__
        function.__code__ = changed.get((old.co_qualname, old.co_firstlineno), old)
    return SURVIVED if all(map(_passes, items)) else KILLED


def _run_imported(module: Path, code: CodeType, items: Sequence[pytest.Item]) -> int:
    """Import all our modules again, with the changed module among them."""
    ours = {Path(path).parts[0].partition(".")[0] for path in (str(module), *[item.nodeid for item in items])}
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]
    # The tables are made anew, too.
    SQLModel.metadata.clear()
    SQLModel._sa_registry._class_registry.clear()
    name = ".".join(module.with_suffix("").parts)
    sys.meta_path.insert(0, _Changed(name, code))
    files = dict.fromkeys(item.nodeid.partition("::")[0] for item in items)
    options = ["--noconftest"] if items[0].config.getoption("noconftest") else []
    with _own_folder():
        status = pytest.main(_arguments(["-x", *options, *files]))
    return SURVIVED if status == pytest.ExitCode.OK else KILLED


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from changed code."""

    def __init__(self, name: str, code: CodeType) -> None:
        self.name, self.code = name, code

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == self.name else None

    def get_source(self, fullname: str) -> str | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def _in_a_child(work: Callable[[], int], limit: float) -> bool:
    """Whether a forked process that runs `work` reports KILLED, crashes, or takes longer than `limit` seconds."""
    child = os.fork()
    if not child:
        status = KILLED
        try:
            with _quiet():
                status = work()
        finally:
            os._exit(status)
    descriptor = os.pidfd_open(child)
    try:
        if not select.select([descriptor], [], [], limit)[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != SURVIVED


def _passes(item: pytest.Item) -> bool:
    # Later tests belong to the same session: its fixtures stay alive for the children.
    follows = cast(pytest.Item, item.session)
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=follows))


@contextmanager
def _recorded(paths: Collection[str]) -> Iterator[set[Line]]:
    """The lines of these files that are executed meanwhile, in any thread."""
    lines = set[Line]()

    def within(frame: FrameType, event: str, _: Any) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return within

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        return within(frame, event, argument) if frame.f_code.co_filename in paths else None

    before = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)
        threading.settrace(None)


@contextmanager
def _own_folder() -> Iterator[None]:
    """Tests have their temporary folders in one of their own meanwhile: another session of pytest that keeps none of
    its folders may remove those of this one."""
    before = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    with TemporaryDirectory(dir=before, ignore_cleanup_errors=True) as folder:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
        try:
            yield
        finally:
            os.environ.pop("PYTEST_DEBUG_TEMPROOT")
            if before is not None:
                os.environ["PYTEST_DEBUG_TEMPROOT"] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard all output of this process and its children inside the block."""
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        for descriptor, former in enumerate(kept, 1):
            os.dup2(former, descriptor)
            os.close(former)


def _arguments(tests: Sequence[str]) -> list[str]:
    # A first failing example kills: a smaller one is looked for by nobody.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=40,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("mutation")
    return [*" ".join(PYTEST_OPTIONS).split(" "), *tests]


def _functions_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _functions_in(constant)
