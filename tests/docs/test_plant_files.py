"""Container file, compose file and units of docs/deploy for a plant, each held to what reads it."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.common.listening import Address
from tests.support.documentation import example
from tests.support.paths import ROOT
from tests.support.systemd import needs_systemd, verify

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = example("plant")
MADE_THERE = {"line", "repository", "secrets"}  # what the page tells to make beside the compose file
CFLOW, DOCKER = "/opt/cflow-edge/.venv/bin/cflow", "/usr/bin/docker"


def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))


SERVICES: dict[str, dict[str, Any]] = compose()["services"]


def test_the_compose_file_is_one():
    specification = pytest.importorskip("compose_spec", reason="pip install '.[dev]'")
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    read = specification.PyCompose.from_yaml(text)
    assert set(read.service_names()) == set(SERVICES)
    with pytest.raises(ValueError, match="restarts"):
        specification.PyCompose.from_yaml(text.replace("restart:", "restarts:", 1))


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_pinned_bounded_and_starts_again(name: str):
    service = SERVICES[name]
    image, _, tag = service["image"].rpartition(":")
    assert image and re.search(r"\d+\.\d+", tag), "a tag that names a release"
    assert service["restart"] == "unless-stopped" and len(service["profiles"]) == 1
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]  # a line runs for months


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str):
    declared = compose()
    for volume in SERVICES[name].get("volumes", []):
        source, target, *_ = volume.split(":")
        assert target.startswith("/")
        if source.startswith("./"):
            first = source.removeprefix("./").split("/")[0]
            assert first in MADE_THERE or (FOLDER / source).exists(), source
        else:
            assert source in declared["volumes"]
    for secret in SERVICES[name].get("secrets", []):
        assert declared["secrets"][secret]["file"] == f"./secrets/{secret}"


def test_the_lines_configuration_is_one_and_fits_the_compose_file(tmp_path: Path):
    shutil.copy(FOLDER / "line.toml", tmp_path)
    command = [sys.executable, "-m", "runtime.infer", "--config", str(tmp_path / "line.toml"), "--dry-run"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and "camera 0" in ended.stdout
    written, line = tomllib.loads((FOLDER / "line.toml").read_text(encoding="utf-8")), SERVICES["line"]
    address = Address.parse(written["serve"])
    assert not address.loopback and line["ports"] == [f"8080:{address.port}"]
    assert written["token-file"] == "/run/secrets/token" and "token" in line["secrets"]
    assert f"/dev/video{written['camera'][0]}:" in line["devices"][0]


def test_prometheus_and_grafana_find_what_is_mounted():
    targets = {volume.split(":")[1]: volume.split(":")[0] for volume in SERVICES["prometheus"]["volumes"]}
    words = dict(word.removeprefix("--").split("=") for word in SERVICES["prometheus"]["command"])
    assert targets[words["config.file"]] == "./prometheus.yml" and words["storage.tsdb.path"] in targets
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    for name in config["rule_files"]:
        assert f"/etc/prometheus/{name}" in targets
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    hosts = {job["static_configs"][0]["targets"][0].partition(":")[0] for job in jobs.values()}
    assert hosts == {"line", "triton"} <= set(SERVICES)
    token = Path(jobs["cflow"]["authorization"]["credentials_file"])
    assert token.parent == Path("/run/secrets") and token.name in SERVICES["prometheus"]["secrets"]
    provider = yaml.safe_load((FOLDER / "grafana/dashboards/cflow.yml").read_text(encoding="utf-8"))["providers"][0]
    shown = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert shown.startswith(provider["options"]["path"] + "/")
    assert any(f":{shown}:ro" in volume for volume in SERVICES["grafana"]["volumes"])


def _hadolint(text: str) -> str:
    program = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("pip install '.[dev]'")
    ended = subprocess.run([program, "--no-color", "-"], input=text, capture_output=True, text=True)
    assert (ended.returncode != 0) == bool(ended.stdout), ended.stderr
    return ended.stdout


def test_hadolint_has_nothing_to_say():
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    assert _hadolint(text) == ""
    assert "DL3007" in _hadolint(text.replace("3.12-slim-bookworm", "latest"))


def test_the_container_has_no_torch_and_all_that_its_page_needs():
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for chosen in re.findall(r"EXTRAS=(\S+)", text):
        names = chosen.split(",")
        assert "serve" in names and set(names) <= set(extras)
        needed = " ".join(requirement for name in names for requirement in extras[name])
        assert "torch" not in needed and "train" not in needed
    copied = [name for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for name in line.split()[:-1]]
    ignored = (FOLDER / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*" and {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    assert SERVICES["line"]["build"]["dockerfile"] == (FOLDER / "Containerfile").relative_to(ROOT).as_posix()
    assert (FOLDER / SERVICES["line"]["build"]["context"]).resolve() == ROOT


def test_the_versions_of_the_container_are_those_of_the_lock(tmp_path: Path):
    [command] = re.findall(r"^RUN (sed .*)$", (FOLDER / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE)
    shutil.copy(ROOT / "requirements" / "dev.lock", tmp_path)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    lines = (tmp_path / "versions.txt").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("numpy==") for line in lines)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\S+( ; .*)?|#.*|", line) for line in lines)


def test_what_is_copied_into_the_container_is_a_package_of_its_own(tmp_path: Path):
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE):
        for name in line.split()[:-1]:
            source, target = ROOT / name, tmp_path / Path(name).name
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "built"), "."]
    ended = subprocess.run([sys.executable, "-m", "pip", *build], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    [wheel] = (tmp_path / "built").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"cflow.py", "runtime/infer.py", "runtime/serve/static/page.js"} <= names
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"cflow.py", "runtime"}


UNITS = {"cflow-server.service": (DOCKER,), "cflow-judge.service": (CFLOW,), "cflow-judge.timer": ()}


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name: str, tmp_path: Path):
    for other in UNITS:
        verify(other, example(other).read_text(), tmp_path, UNITS[other])  # a timer needs its service beside it
    (tmp_path / "docker.service").write_text(f"[Service]\nExecStart={sys.executable}\n")
    text = example(name).read_text()
    assert verify(name, text, tmp_path, UNITS[name]) == ""
    wrong = {"RestartSec=": "RestartSecs=", "Nice=": "Nices=", "Persistent=": "Persist="}
    [(right, mistaken)] = [pair for pair in wrong.items() if pair[0] in text]
    assert "Unknown key" in verify(name, text.replace(right, mistaken), tmp_path, UNITS[name])


@needs_systemd
def test_the_timer_comes_every_night():
    [when] = re.findall(r"^OnCalendar=(.*)$", example("cflow-judge.timer").read_text(), re.MULTILINE)
    ended = subprocess.run(["systemd-analyze", "calendar", "--iterations=2", when], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.count("22:00:00") >= 2


def test_the_server_box_starts_what_the_compose_file_calls_so():
    text = example("cflow-server.service").read_text()
    profiles = set(re.findall(r"--profile (\w+)", text))
    assert profiles == set(SERVICES["triton"]["profiles"])
