"""The house stands: what may know what, how files are named in imports, how large subjects get."""

import ast
import graphlib
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

from swift_hydra.bench.places import DIRTY, LABELS, POLICY, RECORDS, SPEED

# From the ground up; what stands in one line does not know its neighbours there.
FLOORS = [
    ["settings", "compiled", "seeds", "modes"],
    ["files", "journal", "geometry", "snapshot"],
    ["scan"],
    ["data"],
    ["dataloader", "model", "run"],
    ["training"],
    ["cleaning"],
    ["pretrain"],
    ["generation", "detection", "distillation", "thresholds"],
    ["estimator"],
    ["exported", "flags"],
    ["runner"],
    ["SwiftHydra"],
    ["bench", "commands"],
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
# The clone's short name may be imported where a test is about that name.
ALLOWED = {ROOT / "tests" / "test_install.py": {"SwiftHydra"}}


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


def arrows():
    """{module: the modules of the project that it imports}."""
    found = {}
    for module, path in MODULES.items():
        names = {end for name in imported(path) for end in (name, name.rpartition(".")[0])}
        found[module] = names & MODULES.keys()
    return found


def room(module):
    return module.split(".")[1]


def git_files(*options):
    """Paths that ``git ls-files`` lists, from the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the project is not known")
    command = ["git", "ls-files", *options]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
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
    assert not upward, "\n".join(upward)


def test_no_import_circle_between_files():
    graphlib.TopologicalSorter(arrows()).prepare()  # CycleError names the circle


def test_code_imports_under_the_package_name_only():
    names = {module.rpartition(".")[2] for module in MODULES} | FLOOR_OF.keys()
    bare = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in PATHS
        for name in imported(path)
        if name.startswith(".") or name.split(".")[0] in names - ALLOWED.get(path, set())
    ]
    assert not bare, "\n".join(bare)


def test_the_root_shows_few_things():
    files = git_files()
    visible = {path.parts[0] for path in files if not path.parts[0].startswith(".")}
    assert len(visible) <= 16
    assert sum(name.endswith(".py") for name in visible) == 5
    n_files = len(files)
    assert n_files < 250


def test_git_ignores_nothing_that_the_pages_are_built_from():
    folders = [RECORDS, LABELS, DIRTY, POLICY, SPEED]
    ignored = git_files("--others", "--ignored", "--exclude-standard", *map(str, folders))
    assert [path for path in ignored if ".cells" not in path.parts] == []


def test_both_lists_of_requirements_say_the_same():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    project = (ROOT / "pyproject.toml").read_text()
    assert re.findall(r'"(.+)"', project.split("dependencies = [")[1].split("]")[0]) == wanted


def test_the_formatter_is_rarely_switched_off():
    switch = "# fmt: " + "skip"
    assert sum(path.read_text(encoding="utf-8").count(switch) for path in PATHS) <= 10


def test_functions_are_short_and_take_few_things():
    faults = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {fault}"
        for path in PATHS
        for node in nodes(path)
        for fault in size_faults(node)
    ]
    assert not faults, "\n".join(faults)


def size_faults(node):
    """What of a function or a call is too large, in words."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        n_lines = node.end_lineno - node.lineno + 1
        if n_lines > 60:
            yield f"{node.name} has {n_lines} lines"
        named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        n_parameters = sum(parameter.arg not in ("self", "cls") for parameter in named)
        if n_parameters > 8 and node.name != "__init__":
            yield f"{node.name} has {n_parameters} parameters"
    elif isinstance(node, ast.Call) and len(node.args) > 8:
        if ast.unparse(node.func) != "run_script":  # a command line is one thing
            yield f"a call with {len(node.args)} positional arguments"


def test_files_are_read_in_an_encoding_that_the_code_names():
    """By default it is the locale's, in which a page is unreadable, or silently another text."""
    for path in MODULES.values():
        for node in nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = node.args or any(word.arg == "encoding" for word in node.keywords)
                assert node.func.attr != "read_text" or named, f"{path}, line {node.lineno}"
