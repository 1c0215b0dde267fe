"""What is installed, under which licence, and that it is the same everywhere."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.licences import PAGE, USED, direct, licence, needed
from tests.support.paths import ROOT

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LOCKS = ("requirements/dev.lock", "requirements/pip.lock")


def _locked(python: str) -> dict[str, Version]:
    """Return what the lock installs for a version of Python on x86_64 Linux."""
    surroundings = {"python_version": python, "python_full_version": f"{python}.7"}
    surroundings |= {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"}
    found: dict[str, Version] = {}
    for line in (ROOT / LOCKS[0]).read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            asked = Requirement(line.removesuffix("\\"))
            if asked.marker is None or asked.marker.evaluate(surroundings):
                name = canonicalize_name(asked.name)
                assert name not in found, f"{name} is locked twice for Python {python}"
                found[name] = Version(str(asked.specifier).removeprefix("=="))
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_fits_what_the_project_asks_for(python: str):
    locked = _locked(python)
    for asked in direct(("dev", *USED, "docs")):
        if asked.marker is None or asked.marker.evaluate({"python_version": python}):
            version = locked.get(canonicalize_name(asked.name))
            unlocked = asked.name in ("tensorrt", "pycuda")  # of the extra that needs a card of NVIDIA's
            assert unlocked or (version is not None and asked.specifier.contains(version)), str(asked)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_versions_and_hashes_and_no_address(lock: str):
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    version = re.compile(r"[a-z0-9-]+==[^ ]+( ; [^\\]+)? \\")
    file_hash = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert lines and not [line for line in lines if not (version.fullmatch(line) or file_hash.fullmatch(line))]
    ends = [i for i, line in enumerate(lines) if not line.endswith("\\")]
    assert all(lines[i].startswith("    --hash=") for i in ends) and ends[-1] == len(lines) - 1


def test_make_installs_from_the_lock_by_hash_and_says_where_it_does_not(tmp_path: Path):
    def plan(*arguments: str) -> str:
        command = ["make", "--dry-run", f"VENV={tmp_path / 'none'}", *arguments, str(tmp_path / "none" / ".ready")]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    said = plan()
    for lock in LOCKS:
        assert f"--require-hashes --requirement {lock}" in said
    assert "--no-deps --no-build-isolation --editable ." in said and "x86_64 Linux" in said
    condition = re.search(r"-c '(import platform.*?)'", said, re.DOTALL)
    assert condition is not None
    text = condition[1].replace("\\\n", "")

    def ends(machine: str, version: tuple[int, int]) -> int:
        frame = f"import platform, sys; platform.machine = lambda: {machine!r}; sys.version_info = {version}; "
        return subprocess.run([sys.executable, "-c", frame + text]).returncode

    assert [ends("x86_64", (3, minor)) for minor in (9, 10, 13, 14)] == [1, 0, 0, 1]
    assert ends("aarch64", (3, 11)) == 1


def test_every_package_that_users_install_is_listed_with_its_licence():
    rows = dict(re.findall(r"^\| ([a-z0-9-]+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    asked = {canonicalize_name(requirement.name) for requirement in direct() if not requirement.marker}
    assert asked <= rows.keys() and asked & set(needed())
    for package in asked:
        assert rows[package] not in ("", "not said") and licence(package) not in ("", "not said")
    assert not [f"{name}: {said}" for name, said in rows.items() if re.search(r"\bA?GPL", said)]


@pytest.mark.slow
def test_the_bill_of_materials_names_what_is_installed(tmp_path: Path):
    tool = Path(sys.executable).with_name("cyclonedx-py")
    if not tool.exists() and shutil.which("cyclonedx-py") is None:
        pytest.skip("pip install cyclonedx-bom")
    [line] = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "cyclonedx-py" in line]
    out = tmp_path / "sbom.json"
    command = line.strip().replace("$(VENV)/bin/cyclonedx-py", str(tool)).replace("$(PY)", sys.executable)
    subprocess.run(command.replace("build/sbom.json", str(out)).split(), cwd=ROOT, check=True, capture_output=True)
    bill = json.loads(out.read_text(encoding="utf-8"))
    named = {canonicalize_name(part["name"]): part for part in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX" and set(needed()) <= named.keys()
    assert all(part["version"] for part in named.values()) and named["numpy"]["purl"].startswith("pkg:pypi/numpy@")
    assert named["numpy"]["licenses"]
    assert bill["metadata"]["component"]["name"] == "cflow-edge"


def test_every_test_that_the_security_page_names_is_there():
    named = re.findall(r"`(tests/[a-z_/]+\.py)(?:::(test_\w+))?`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 12
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, f"{file}::{test}"
