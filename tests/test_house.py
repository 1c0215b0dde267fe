"""The house: imports run one way, from the commands down to the common ground, and nowhere in a circle."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.paths import ROOT

PACKAGES = ("runtime", "export", "train")
SPOKEN = ("cflow", *PACKAGES)
OUTER = {
    "runtime": {"runtime"},
    "export": {"export", "runtime"},
    "train": {"train", "export", "runtime"},
    "cflow": {"train", "export", "runtime"},  # and nothing imports cflow
}
# what each room of the runtime may import besides itself; a module that is in no room is a room of its own
ROOMS: dict[str, set[str]] = {
    "common": set(),
    "result": set(),
    "engines": {"common", "images"},
    "images": {"common", "result"},
    "triggers": {"common", "result"},
    "records": {"common"},
    "sources": {"common", "images", "triggers"},
    "sinks": {"common", "images", "records", "result", "sources", "triggers"},
    "drift": {"common", "images", "recipes", "records", "sinks"},
    "recipes": {"common", "detector", "engines", "images", "result", "sources"},
    "controller": {"common", "images", "recipes", "result", "sinks", "sources", "triggers"},
    "detector": {"common", "engines", "images", "result"},
    "inputs": {"common", "recipes", "sinks", "sources", "triggers"},
    "outgoing": {"common", "images", "recipes", "result", "sinks", "sources", "triggers"},
    "judging": {"common", "detector", "images", "recipes", "result", "sources", "triggers"},
    "inspection": {"common", "detector", "images", "judging", "outgoing", "recipes", "sources", "triggers"},
    "serve": {
        "common",
        "drift",
        "engines",
        "images",
        "recipes",
        "records",
        "result",
        "shadow",
        "sinks",
        "sources",
        "triggers",
    },
    "shadow": {"common", "detector", "engines", "images", "recipes", "records", "result", "sinks"},
    "report": {"common", "engines", "period"},
    "period": {"common", "records", "result", "sinks"},
    "gauge": {"common", "records"},
    "improve": {"common", "detector", "engines", "images", "records", "result"},
    "checks": {"common", "images", "recipes", "records", "result", "sources"},
    "overheads": {
        "common",
        "detector",
        "drift",
        "engines",
        "images",
        "inspection",
        "recipes",
        "records",
        "result",
        "serve",
        "shadow",
        "sinks",
        "sources",
        "triggers",
    },
}
ROOMS["line"] = ROOMS.keys() - {"report", "line", "gauge", "improve", "overheads"}  # puts all of them together
COMMANDS = {
    "infer",
    "capture",
    "check",
    "soak",
    "overhead",
    "trace",
    "review",
}  # may import every room but the report, and no other command


class Import(NamedTuple):
    """That `module` imports `imported`; `typing_only`: for the type checker alone."""

    module: str
    imported: str
    typing_only: bool


def _modules(root: Path) -> dict[str, Path]:
    paths = [root / "cflow.py", *(path for package in PACKAGES for path in (root / package).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def _imports() -> list[Import]:
    """Return every import among our own modules, those within functions too."""
    modules = _modules(ROOT)
    return [found for module, path in modules.items() for found in _imports_of(module, path, modules)]


def _imports_of(module: str, path: Path, modules: dict[str, Path]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    guarded = {inner for check in checks for statement in check.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in inner]
        for name in dict.fromkeys(names):
            if name.partition(".")[0] in SPOKEN:
                yield Import(module, name, node in guarded)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _upward(imports: Iterable[Import]) -> list[str]:
    """Return the imports that go against the direction of the house, in words."""
    return sorted({f"{item.module} imports {item.imported}" for item in imports if not _allowed(item)})


def _allowed(item: Import) -> bool:
    package, other = (name.partition(".")[0] for name in (item.module, item.imported))
    if other not in OUTER[package]:
        return False
    here, there = _room(item.module), _room(item.imported)
    if package != "runtime" or here == there:
        return True
    if here == "":  # runtime/__init__.py: `runtime.load`
        return there in ("common", "detector", "engines")
    if there == "":  # the same, from outside
        return here == "report"
    if (here, there) == ("soak", "overhead"):  # the same engine options
        return True
    return there in (ROOMS.keys() - {"report"} if here in COMMANDS else ROOMS[here])


def _circles(imports: Iterable[Import]) -> list[list[str]]:
    """Return the circles that imports make; what is for the type checker only makes none."""
    edges: dict[str, set[str]] = {}
    for item in imports:
        if not item.typing_only:
            edges.setdefault(item.module, set()).add(item.imported)
    done: set[str] = set()
    circles: list[list[str]] = []

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            circles.append([*way[way.index(module) :], module])
        elif module not in done:
            for imported in sorted(edges.get(module, ())):
                visit(imported, [*way, module])
            done.add(module)

    for module in sorted(edges):
        visit(module, [])
    return circles


def test_no_import_runs_upwards():
    assert _upward(_imports()) == []


def test_no_imports_make_a_circle():
    assert _circles(_imports()) == []


def test_every_room_of_the_runtime_is_in_the_table():
    rooms = {_room(module) for module in _modules(ROOT) if module.startswith("runtime.")}
    assert rooms == ROOMS.keys() | COMMANDS


def _with(folder: Path, place: str, line: str) -> list[Import]:
    """Return the imports where a copy of the file at `place`, made in `folder` with `line` added, takes its place."""
    copy = folder / Path(place).name
    copy.write_text((ROOT / place).read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    modules = _modules(ROOT)
    [module] = [name for name, path in modules.items() if path == ROOT / place]
    return [*(item for item in _imports() if item.module != module), *_imports_of(module, copy, modules)]


@pytest.mark.parametrize(
    ("place", "line", "found"),
    [
        ("runtime/result.py", "import export.fuse", "runtime.result imports export.fuse"),
        ("export/fuse.py", "def late():\n    from train import fit", "export.fuse imports train.fit"),
        ("train/fit.py", "from cflow import main", "train.fit imports cflow"),
        ("runtime/common/errors.py", "import runtime.result", "runtime.common.errors imports runtime.result"),
        (
            "runtime/engines/sidecar.py",
            "from runtime.sources import feed",
            "sidecar imports runtime.sources.feed",
        ),
        (
            "runtime/sources/feed.py",
            "if TYPE_CHECKING:\n    import runtime.sinks.mqtt",
            "feed imports runtime.sinks.mqtt",
        ),
        ("runtime/capture.py", "import runtime.infer", "runtime.capture imports runtime.infer"),
    ],
)
def test_an_import_upwards_is_found(tmp_path: Path, place: str, line: str, found: str):
    [upward] = _upward(_with(tmp_path, place, line))
    assert upward.endswith(found)


def test_a_circle_is_found_through_a_function_and_a_third_module(tmp_path: Path):
    # images.overlay imports images.caption, and that imports images.pixels
    late = "def late():\n    from runtime.images.overlay import draw\n    return draw"
    circles = _circles(_with(tmp_path, "runtime/images/pixels.py", late))
    assert circles and all("runtime.images.pixels" in circle for circle in circles)
    assert any({"runtime.images.overlay", "runtime.images.caption"} <= set(circle) for circle in circles)


def test_an_import_for_types_alone_makes_no_circle(tmp_path: Path):
    typing = "if TYPE_CHECKING:\n    from runtime.images.overlay import draw"
    assert _circles(_with(tmp_path, "runtime/images/pixels.py", typing)) == []
