"""The house stands: what may know what, how files are named in imports, how large things get."""

import ast
import graphlib
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

# From the ground up; what stands in one line does not know its neighbours there.
FLOORS = [
    ["settings"],
    ["files", "journal", "geometry", "snapshot"],
    ["scan"],
    ["data"],
    ["dataloader", "model", "run"],
    ["training"],
    ["pretrain"],
    ["generation", "detection"],
    ["estimator"],
    ["SwiftHydra"],
    ["bench"],
    ["benchmark"],
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE = ROOT / "swift_hydra"
MODULES = {f"swift_hydra.{path.stem}": path for path in ROOT.glob("*.py")} | {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}
OUTSIDE = ("tests", "ADBenchDatasets")  # code of the project that is in no room
PATHS = [*MODULES.values(), *PACKAGE.rglob("__init__.py")]
PATHS += [path for folder in OUTSIDE for path in sorted((ROOT / folder).rglob("*.py"))]
# The clone's short name: a test may import it where it is about that name.
ABOUT_THE_SHORT_NAME = [ROOT / "tests" / "test_install.py"]


@cache
def nodes(path):
    """All nodes of a file's syntax tree, those inside of functions too."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(path):
    """Dotted names of what a file imports; relative ones begin with a dot."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def place(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


def arrows():
    """{module: the modules of the project that it imports}."""
    found = {}
    for module, path in MODULES.items():
        names = {end for name in imported(path) for end in (name, name.rpartition(".")[0])}
        found[module] = names & MODULES.keys()
    return found


def room(module):
    return module.split(".")[1]


def tracked():
    """Paths that git knows, from the root."""
    try:
        command = ["git", "ls-files"]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files belong to the project is not known")
    return [Path(line) for line in done.stdout.splitlines()]


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} == FLOOR_OF.keys()


def test_no_file_imports_a_higher_floor_or_a_neighbour():
    upward = [
        f"{module} -> {other}"
        for module, others in arrows().items()
        for other in others
        if room(module) != room(other) and FLOOR_OF[room(other)] >= FLOOR_OF[room(module)]
    ]
    assert not upward


def test_no_import_circle_between_files():
    graphlib.TopologicalSorter(arrows()).prepare()  # CycleError names the circle


def test_code_imports_under_the_package_name_only():
    short = {module.rpartition(".")[2] for module in MODULES} | FLOOR_OF.keys()
    bare = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in PATHS
        for name in imported(path)
        if name.split(".")[0] in (short | {""})
        and not (name.split(".")[0] == "SwiftHydra" and path in ABOUT_THE_SHORT_NAME)
    ]
    assert not bare


def test_the_root_shows_few_things():
    files = tracked()
    visible = {path.parts[0] for path in files if not path.parts[0].startswith(".")}
    assert len(visible) <= 16
    assert sum(name.endswith(".py") for name in visible) == 5
    assert len(files) < 250


def test_both_lists_of_requirements_say_the_same():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    project = (ROOT / "pyproject.toml").read_text()
    assert re.findall(r'"(.+)"', project.split("dependencies = [")[1].split("]")[0]) == wanted


def test_the_formatter_is_rarely_switched_off():
    switch = "# fmt: " + "skip"
    assert sum(path.read_text(encoding="utf-8").count(switch) for path in PATHS) <= 10


def test_functions_are_short_and_take_few_things():
    long, wide = [], []
    for path in PATHS:
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > 60:
                    long.append(f"{place(path, node.lineno)} {node.name}: {lines} lines")
                n = n_parameters(node)
                if n > 8 and node.name != "__init__":
                    wide.append(f"{place(path, node.lineno)} {node.name}: {n} parameters")
            elif isinstance(node, ast.Call) and len(node.args) > 8:
                wide.append(f"{place(path, node.lineno)} {len(node.args)} positional arguments")
    assert not long
    assert not wide


def n_parameters(function):
    """Parameters of a function without ``self``."""
    named = function.args
    every = [*named.posonlyargs, *named.args, *named.kwonlyargs]
    return sum(parameter.arg not in ("self", "cls") for parameter in every)
