"""Lines whose engine is on a server: sources, views, recipes, triggers, checks, shadow, records, as with a file."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

import runtime
from export import triton
from runtime import check, infer, overhead
from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of
from runtime.engines.remote.options import ServerOptions
from runtime.records.read import Query, judgements
from runtime.triggers.options import TriggerOptions
from tests.runtime.engines.remote.test_remote_session import BAD, GOOD, PATIENT, grey, noise
from tests.support.log_rows import asked
from tests.support.shadow_rig import BETWEEN, shadowing
from tests.support.tiny_engine import write_tiny_engine, write_wide_engine
from tests.support.triggered_run import Running
from tests.support.triggered_sources import OnDemand
from tests.support.waiting import wait_until

SLOW = ["--server-deadline", "60000"]
Run = Callable[..., "tuple[int, list[dict[str, Any]], str]"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `runtime.infer` and gives its status, its verdicts and what it said."""

    def infer_with(*words: object) -> tuple[int, list[dict[str, Any]], str]:
        capsys.readouterr()
        status = run_command(infer.main, [str(word) for word in [*words, "--json", *SLOW]])
        said = capsys.readouterr()
        return status, [json.loads(line) for line in said.out.splitlines()], said.err

    return infer_with


def pictures(folder: Path, *levels: int, size: tuple[int, int] = (32, 48)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for place, level in enumerate(levels):
        Image.fromarray(grey(level, size)).save(folder / f"{place}.png")
    return folder


def _verdicts(lines: list[dict[str, Any]]) -> list[str]:
    return [line["verdict"] for line in lines]


@pytest.mark.parametrize("more", [[], ["--batch-cameras"]])
def test_several_sources_share_one_engine(tmp_path: Path, serve: Callable[..., Any], run: Run, more: list[str]):
    first, second = pictures(tmp_path / "a", GOOD, BAD, GOOD, BAD), pictures(tmp_path / "b", BAD, BAD, GOOD, GOOD)
    status, lines, said = run("--engine", f"{serve().url}/cable", "--source", first, "--source", second, *more)
    assert status == 0, said
    by_source = {name: _verdicts([one for one in lines if one["source"] == str(name)]) for name in (first, second)}
    assert by_source == {
        first: ["good", "anomalous", "good", "anomalous"],
        second: ["anomalous", "anomalous", "good", "good"],
    }


def test_regions_and_masks_see_the_same_map(tmp_path: Path, engine: Path, serve: Callable[..., Any], run: Run):
    half = grey(GOOD, (64, 96))
    half[:, 60:] = BAD
    (tmp_path / "p").mkdir()
    Image.fromarray(half).save(tmp_path / "p" / "0.png")
    mask = np.zeros((64, 96), np.uint8)
    mask[:, :50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    server = serve()
    for view in (["--roi", "0,0,48,64"], ["--mask", tmp_path / "mask.png"], []):
        _, [there], said = run("--engine", f"{server.url}/cable", "--source", tmp_path / "p", *view)
        _, [here], _ = run("--engine", engine, "--backend", "onnxruntime", "--source", tmp_path / "p", *view)
        assert there["verdict"] == ("good" if view else "anomalous"), said
        assert {key: there[key] for key in ("score", "verdict", "boxes")} == {
            key: here[key] for key in ("score", "verdict", "boxes")
        }


def test_an_engine_with_the_resize_inside_gets_the_cameras_frames(tmp_path: Path, serve: Callable[..., Any], run: Run):
    path = write_wide_engine(tmp_path, "wide", (32, 48), 2)
    triton.main([str(tmp_path / "models"), str(path), "--backend", "python"])
    with runtime.load(path, threads=1, backend="onnxruntime") as local:
        address = f"{serve('http').url}/wide"
        with runtime.load(address, server=PATIENT) as remote:
            frame = noise(3, (64, 96))
            assert np.array_equal(remote(frame).anomaly_map, local(frame).anomaly_map)
            assert remote.session.frame_size == (64, 96) and remote.session.max_batch == 1
            with pytest.raises(UserError, match="must be 64x96"):
                remote(noise(3))
        status, lines, _ = run("--engine", address, "--source", pictures(tmp_path / "p", GOOD, BAD, size=(64, 96)))
        assert status == 0 and _verdicts(lines) == ["good", "anomalous"]


def test_a_recipe_with_a_server_and_a_file_and_one_with_two_of_a_server(
    tmp_path: Path, engine: Path, repository: Path, serve: Callable[..., Any], run: Run
):
    triton.main([str(repository), str(write_tiny_engine(tmp_path, "plug", threshold=2.5)), "--backend", "python"])
    server = serve()
    (tmp_path / "recipes.toml").write_text(
        f'[[recipe]]\nname = "both"\n[[recipe.inspect]]\nname = "server"\nengine = "{server.url}/plug"\n'
        f'[[recipe.inspect]]\nname = "file"\nengine = "{engine}"\n'
        f'[[recipe]]\nname = "two"\n[[recipe.inspect]]\nname = "a"\nengine = "{server.url}/plug"\n'
        f'[[recipe.inspect]]\nname = "b"\nengine = "{server.url}/plug"\nthreshold = 0.1\n'
    )
    source = pictures(tmp_path / "p", GOOD, BAD)
    words = ["--recipes", tmp_path / "recipes.toml", "--source", source]
    status, lines, said = run(*words, "--recipe", "both")
    assert status == 0 and _verdicts(lines) == ["good", "anomalous"], said
    assert [[part["verdict"] for part in line["parts"]] for line in lines] == [["good"] * 2, ["good", "anomalous"]]
    status, lines, said = run(*words, "--recipe", "two")
    assert status == 0 and _verdicts(lines) == ["anomalous", "anomalous"], said
    assert "2 recipes, 2 engines loaded" in said


def test_a_trigger_has_its_answer_in_time_or_none(serve: Callable[..., Any]):
    server = serve()
    with runtime.load(f"{server.url}/cable", server=ServerOptions(deadline_ms=60_000)) as detector:
        running = Running([OnDemand()], detector, TriggerOptions(deadline_s=1.0, queue=50, skip=0))
        try:
            running.ask("first")
            running.wait(1)
            server.models.behaviour = "late"  # three seconds
            running.ask("second")
            wait_until(lambda: "second" in running.kept.by_part())
            answer = running.kept.by_part()["second"].result
            assert answer.verdict == "none" and "no verdict within 1000 ms" in answer.reason
            server.models.behaviour = "right"
            time.sleep(server.models.late_s)
            running.ask("third")
            wait_until(lambda: "third" in running.kept.by_part())
            assert running.kept.by_part()["third"].result.verdict == "good"
        finally:
            running.stop()


def test_records_name_the_address_without_secrets_and_the_hashes_of_what_judged(
    tmp_path: Path, engine: Path, serve: Callable[..., Any], run: Run
):
    server = serve()
    host = server.url.partition("://")[2]
    log = tmp_path / "i.db"
    words = ["--engine", f"grpc://line:geheim@{host}/cable", "--source", pictures(tmp_path / "p", GOOD, BAD)]
    status, _, said = run(*words, "--log", log)
    assert status == 0, said
    [found] = asked(log, "SELECT engine, engine_sha256, device, options FROM runs")
    assert found[:3] == (f"{server.url}/cable", sha256_of(engine), f"{server.url}, version 1")
    assert "geheim" not in found[3] and [one["verdict"] for one in judgements(log, Query())] == ["anomalous", "good"]
    assert b"geheim" not in log.read_bytes()


def test_a_dry_run_asks_no_server_and_tells_no_password(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]):
    recipes = tmp_path / "recipes.toml"
    recipes.write_text('[[recipe]]\nname = "r"\nengine = "grpc://u:geheim@127.0.0.1:1/cable"\n')
    shadow = ["--shadow", "http://u:geheim@127.0.0.1:1/cable"]
    assert infer.main(["--recipes", str(recipes), "--source", str(tmp_path), "--dry-run", *shadow]) is None
    said = capsys.readouterr().out
    assert "engine grpc://127.0.0.1:1/cable" in said and "shadow: http://127.0.0.1:1/cable" in said
    assert "geheim" not in said and "would not open" not in said
    status, _, said = run("--engine", "grpc://u:geheim@127.0.0.1:1/cable", "--source", tmp_path)
    assert status == 2 and "grpc://127.0.0.1:1/cable must answer" in said and "geheim" not in said
    words = ["--engine", "grpc://u:geheim@127.0.0.1:1/cable", "--source", str(tmp_path), "--show-config"]
    with pytest.raises(SystemExit):
        infer.main(words)
    assert "geheim" not in capsys.readouterr().out


def test_a_check_of_reference_parts(tmp_path: Path, serve: Callable[..., Any], capsys: pytest.CaptureFixture[str]):
    pictures(tmp_path / "parts" / "good", GOOD), pictures(tmp_path / "parts" / "bad", BAD)
    words = ["--golden", str(tmp_path / "parts"), "--engine", f"{serve().url}/cable", *SLOW]
    assert check.main([*words, "--record"]) == 0 and check.main(words) == 0
    assert "passed" in capsys.readouterr().out


def test_a_server_that_is_away_is_status_1_and_a_line_each(
    tmp_path: Path, serve: Callable[..., Any], capsys: pytest.CaptureFixture[str]
):
    server = serve()
    server.models.behaviour = "nan"
    words = ["--engine", f"{server.url}/cable", "--source", str(pictures(tmp_path / "p", GOOD, BAD)), "--json"]
    assert run_command(infer.main, [*words, *SLOW]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert _verdicts(lines) == ["none", "none"] and all(line["reason"] and line["score"] is None for line in lines)


def test_a_candidate_stands_beside_an_engine_on_a_server_and_is_promoted_there(
    tmp_path: Path, engine: Path, serve: Callable[..., Any]
):
    write_tiny_engine(tmp_path, "cable2", size=(24, 40), threshold=2.0)
    address = f"{serve().url}/cable"
    words = ["--recipes", str(tmp_path / "r.toml"), "--shadow", str(tmp_path / "cable2.onnx"), *SLOW]
    (tmp_path / "r.toml").write_text(f'[[recipe]]\nname = "r"\nengine = "{address}"\n')
    with shadowing(tmp_path, *words) as rig:
        rig.judge(GOOD, BETWEEN, BAD)
        found = rig.state()
        assert (found["compared"], found["counts"]["running_only"], found["counts"]["both_good"]) == (3, 1, 1)
        assert "replaced there" in found["fixed"]
        answer = rig.change()
        assert answer.status >= 400 and "replaced there" in answer.body.decode()
        assert rig.page.state()["threshold"]["fixed"] == "the engine's sidecar is on a server"


def test_a_candidate_on_a_server_stands_beside_a_file(tmp_path: Path, engine: Path, serve: Callable[..., Any]):
    write_tiny_engine(tmp_path, "cable", threshold=2.0)
    with shadowing(tmp_path, "--shadow", f"{serve().url}/cable", *SLOW) as rig:
        rig.judge(GOOD, BETWEEN, BAD)
        found = rig.state()
        assert (found["compared"], found["counts"]["candidate_only"], found["counts"]["both_anomalous"]) == (3, 1, 1)
        assert "replaced there" in found["fixed"] and "127.0.0.1" in found["candidate"]


def test_what_a_server_costs_is_measured_beside_the_file(
    engine: Path, serve: Callable[..., Any], capsys: pytest.CaptureFixture[str]
):
    address = f"{serve().url}/cable"
    words = ["--engine", str(engine), "--backend", "onnxruntime", "--threads", "1", "--frames", "3", "--rounds", "2"]
    overhead.main([*words, "--serving", address, *SLOW])
    said = capsys.readouterr().out
    assert "by shared memory" in said and "by the network" in said and "the same, bit for bit" in said
    with pytest.raises(SystemExit):
        overhead.main([*words, "--serving", str(engine)])
    assert "expected an address" in capsys.readouterr().err
