"""A server's engine judges as its file does; where the server is wrong or away there is no verdict, with a reason."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

import runtime
from export import triton
from runtime.common.errors import UserError
from runtime.detector import Detector
from runtime.engines.golden import Golden
from runtime.engines.remote import memory
from runtime.engines.remote.options import ServerOptions
from runtime.engines.sidecar import read_sidecar, sidecar_path, write_sidecar
from tests.runtime.engines.remote.conftest import KINDS
from tests.support.certificates import Authority
from tests.support.kserve_models import Models
from tests.support.kserve_server import Tls
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

GOOD, BAD = 40, 200  # grey levels on both sides of the threshold, 85
PATIENT = ServerOptions(deadline_ms=60_000)  # a loaded machine's answers come in time
WRONG = {
    "empty": "cannot be read",
    "short": "cannot be read",
    "shape": "must be for 1 frames",
    "type": "must be float32, not int32",
    "missing": "must be float32, not missing",
    "id": "of another request",
    "version": "of version 99",
    "error": "the model has failed in two lines",
    "nan": "not finite",
}


def grey(level: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def noise(seed: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def local(engine: Path) -> Iterator[Detector]:
    with runtime.load(engine, threads=1, backend="onnxruntime") as detector:
        yield detector


@pytest.fixture
def load() -> Iterator[Callable[..., Detector]]:
    with ExitStack() as stack:
        yield lambda server, **options: stack.enter_context(
            runtime.load(f"{server.url}/cable", server=replace(PATIENT, **options))
        )


def _same(one: Any, other: Any) -> bool:
    return one.image_score == other.image_score and np.array_equal(one.anomaly_map, other.anomaly_map)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False])
def test_results_are_those_of_the_file_bit_for_bit(
    kind: str, shared: bool, serve: Callable[..., Any], local: Detector, load: Callable[..., Detector]
):
    server = serve(kind)
    remote = load(server, shared_memory=shared)
    frames = [noise(seed, size) for seed, size in enumerate([(32, 48), (32, 48), (77, 90), (480, 640)])]
    for frame in frames:
        assert _same(remote(frame), local(frame)) and remote(frame).verdict == local(frame).verdict
    several = remote.batch([grey(GOOD), grey(BAD), grey(GOOD), grey(BAD), grey(GOOD)])
    assert [result.verdict for result in several] == ["good", "anomalous", "good", "anomalous", "good"]
    assert all(asked.shared is shared for asked in server.models.asked) and remote.session.max_batch == 4
    assert remote.hashes == local.hashes and remote.sidecar == local.sidecar
    assert set(remote(frames[0]).latency_ms) == {"preprocess", "copy_in", "execute", "total"}


def test_several_requests_are_under_way_and_results_keep_their_order(
    serve: Callable[..., Any], local: Detector, load: Callable[..., Detector]
):
    server = serve()
    remote = load(server, in_flight=3)
    server.models.behaviour, server.models.late_s = "late", 1.0
    levels = [10, 60, 110, 160, 210, 250]
    found = [result.image_score for result in remote.stream([grey(level) for level in levels])]
    assert found == [local(grey(level)).image_score for level in levels]
    assert server.models.most_at_once == 3
    pending = [remote.submit([grey(GOOD)]) for _ in range(3)]
    with pytest.raises(RuntimeError, match="3 requests wait already"):
        remote.submit([grey(GOOD)])
    for one in pending:
        one.discard()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("behaviour", "reason"), WRONG.items())
def test_a_wrong_answer_is_no_verdict_and_the_line_goes_on(
    kind: str, behaviour: str, reason: str, serve: Callable[..., Any], load: Callable[..., Detector]
):
    server = serve(kind)
    remote = load(server)
    server.models.behaviour = behaviour
    result = remote(grey(GOOD))
    assert result.verdict == "none" and reason in result.reason and "\n" not in result.reason, result.reason
    assert np.isnan(result.image_score) and not result.anomaly_map.any()
    server.models.behaviour = "right"
    wait_until(lambda: remote(grey(GOOD)).verdict == "good")
    assert remote(grey(BAD)).verdict == "anomalous"


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_after_the_deadline_is_no_verdict(
    kind: str, serve: Callable[..., Any], load: Callable[..., Detector]
):
    server = serve(kind)
    remote = load(server, deadline_ms=1500.0)
    server.models.behaviour = "late"
    results = [submitted.results()[0] for submitted in [remote.submit([grey(BAD)]), remote.submit([grey(BAD)])]]
    assert {result.verdict for result in results} == {"none"}
    assert all("within 1500 ms" in result.reason for result in results)
    server.models.behaviour = "right"
    wait_until(lambda: remote(grey(GOOD)).verdict == "good")
    assert [result.verdict for result in remote.stream([grey(BAD), grey(GOOD)] * 4)] == ["anomalous", "good"] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_was_killed_gives_no_verdict_until_it_is_back(
    kind: str, repository: Path, capfd: pytest.CaptureFixture[str]
):
    with subprocess.Popen(**_process(repository, kind, 0), stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        address = first.stdout.readline().strip()
        with runtime.load(f"{address}/cable", server=ServerOptions(deadline_ms=10_000, wait_s=60)) as remote:
            assert remote(grey(BAD)).verdict == "anomalous"
            remote.session._options = replace(remote.session._options, deadline_ms=300.0)
            first.kill()
            first.wait()
            wait_until(lambda: remote(grey(GOOD)).verdict == "none")
            assert remote(grey(GOOD)).reason
            port = int(address.rpartition(":")[2])
            with subprocess.Popen(**_process(repository, kind, port), stdout=subprocess.DEVNULL) as second:
                try:
                    wait_until(lambda: remote(grey(GOOD)).verdict == "good")
                    wait_until(lambda: remote(grey(BAD)).verdict == "anomalous")
                finally:
                    second.kill()
    told = capfd.readouterr().err
    assert "no verdicts:" in told and "judges again" in told


def _process(repository: Path, kind: str, port: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.support.kserve_server", str(repository), kind, str(port)]
    return {"args": words, "cwd": ROOT}


def test_a_frame_waits_within_its_deadline_for_a_server_that_comes_back(
    serve: Callable[..., Any], load: Callable[..., Detector]
):
    server = serve()
    remote = load(server)
    server.stop()
    submitted = remote.submit([grey(BAD)])
    serve(models=server.models, port=server.port)
    assert submitted.results()[0].verdict == "anomalous"


@pytest.mark.parametrize("change", ["version", "sidecar"])
def test_a_server_that_comes_back_with_another_model_gives_no_verdicts(
    change: str,
    tmp_path: Path,
    repository: Path,
    engine: Path,
    serve: Callable[..., Any],
    load: Callable[..., Detector],
):
    server = serve()
    remote = load(server, deadline_ms=500.0)
    server.stop()
    words = [str(repository), str(engine), "--backend", "python", "--batch", "4"]
    if change == "version":
        sidecar = read_sidecar(engine)
        threshold = replace(sidecar.threshold, value=0.1)
        write_sidecar(engine, replace(sidecar, thresholds={sidecar.default_threshold: threshold}))
        triton.main([*words, "--loaded", "1"])
        reason = "no version 1"
    else:
        config = repository / "cable" / "config.pbtxt"
        text = config.read_text()
        write_sidecar(engine, replace(read_sidecar(engine), encoder="another"))
        triton.main([str(tmp_path / "other"), *words[1:]])
        config.write_text((tmp_path / "other" / "cable" / "config.pbtxt").read_text())
        reason = "another engine or sidecar"
    back = serve(models=server.models, port=server.port)
    wait_until(lambda: reason in remote(grey(GOOD)).reason)
    assert remote(grey(BAD)).verdict == "none"
    if change == "sidecar":
        config.write_text(text)
        wait_until(lambda: remote(grey(BAD)).verdict == "anomalous")
    else:  # who starts anew judges by the new one
        assert load(back)(grey(GOOD)).verdict == "anomalous"


def test_another_engine_under_the_same_version_refuses_each_request(
    repository: Path, serve: Callable[..., Any], load: Callable[..., Detector]
):
    server = serve()
    remote = load(server, deadline_ms=1000.0)
    assert {asked.parameters["engine_sha256"] for asked in server.models.asked} == {remote.hashes.engine}
    config = repository / "cable" / "config.pbtxt"
    text = config.read_text()
    config.write_text(text.replace(remote.hashes.engine, "0" * 64))
    assert remote(grey(BAD)).verdict == "none"
    config.write_text(text)
    wait_until(lambda: remote(grey(BAD)).verdict == "anomalous")


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_no_triton_needs_a_sidecar_and_gets_the_frames_sent(
    kind: str, tmp_path: Path, engine: Path, serve: Callable[..., Any], local: Detector, load: Callable[..., Detector]
):
    server = serve(kind, triton=False)
    with pytest.raises(UserError, match="give its sidecar with --sidecar"):
        load(server)
    with pytest.raises(UserError, match="--sidecar must name the sidecar of cable"):
        load(server, sidecar=tmp_path)
    for sidecar in (sidecar_path(engine), engine.parent):  # the file, and the folder with cable.json
        remote = load(server, sidecar=sidecar)
        assert _same(remote(noise(1)), local(noise(1))) and not server.models.asked[-1].shared
        assert remote.hashes.engine == "" and remote.hashes.sidecar == local.hashes.sidecar


def test_a_sidecar_of_the_box_that_is_edited_is_for_the_next_start(engine: Path, serve: Callable[..., Any]):
    server, sidecar = serve(triton=False), sidecar_path(engine)
    with runtime.load(f"{server.url}/cable", server=replace(PATIENT, sidecar=sidecar, deadline_ms=2000.0)) as remote:
        for edit in (lambda: sidecar.write_text(sidecar.read_text().replace("resnet18", "resnet50")), sidecar.unlink):
            edit()
            server.models.behaviour = "error"  # after that the server is looked at
            assert remote(grey(BAD)).verdict == "none"
            server.models.behaviour = "right"
            wait_until(lambda: remote(grey(BAD)).verdict == "anomalous")


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_without_the_contract_is_refused(
    kind: str, repository: Path, serve: Callable[..., Any], load: Callable[..., Detector]
):
    server = serve(kind)
    config = repository / "cable" / "config.pbtxt"
    text = config.read_text()
    for old, new, said in (
        ("TYPE_UINT8", "TYPE_FP32", "must have frames UINT8"),
        ('"frames"', '"image"', "must have frames UINT8"),
        ("dims: 48", "dims: 64", "must have frames UINT8"),
        ('"image_score"', '"score"', "must have image_score FP32"),
        ('\\"encoder\\"', '\\"decoder\\"', "must be as it was written"),
        ("cflow-edge/serving/1", "cflow-edge/serving/9", "must have a sidecar"),
    ):
        assert old in text
        config.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=said):
            load(server)
    config.write_text(text)
    assert load(server)(grey(GOOD)).verdict == "good"


@pytest.mark.parametrize(
    "nonsense", [{"inputs": 5}, {"inputs": [7]}, {"inputs": [{"shape": ["x"]}]}, [], {"outputs": {}}]
)
def test_a_server_that_describes_no_model_is_refused(
    nonsense: Any, serve: Callable[..., Any], load: Callable[..., Detector]
):
    server = serve("http")
    server.models.metadata = lambda *_: {"versions": ["1"], **nonsense} if nonsense else nonsense
    with pytest.raises(UserError, match=r"describe its model|must have frames|answer with an object"):
        load(server)


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_frame_that_the_server_cannot_judge_ends_the_start(
    kind: str, serve: Callable[..., Any], load: Callable[..., Detector]
):
    server = serve(kind)
    server.models.behaviour = "error"
    with pytest.raises(UserError, match=r"must judge a first frame; found the model has failed in two lines"):
        load(server)


@pytest.mark.parametrize("known", [True, False])  # whether the server says which engine it runs
def test_the_golden_frames_must_have_their_scores(
    known: bool, tmp_path: Path, engine: Path, serve: Callable[..., Any], local: Detector, load: Callable[..., Detector]
):
    golden = Golden.of(grey(60))
    scores = tuple(float(local.session.run(frame[None])[1][0]) for frame in golden.frames((32, 48)))
    repository = tmp_path / "golden"
    for name, found, fits in (("right", scores, True), ("wrong", (scores[0], scores[1] + 1), False)):
        given = {"int8": (9.0, 9.0), "fp32": found} if not known else {"fp32": found}
        write_sidecar(engine, replace(read_sidecar(engine), golden=replace(golden, scores=given)))
        triton.main([str(repository), str(engine), "--name", name, "--backend", "python"])
        server = serve(models=Models(repository, triton=known))
        options = PATIENT if known else replace(PATIENT, sidecar=sidecar_path(engine))
        if fits:
            with runtime.load(f"{server.url}/{name}", server=options) as remote:
                assert len(server.models.asked) == (2 if known else 4) and remote(grey(BAD)).verdict == "anomalous"
        else:
            with pytest.raises(UserError, match="must score the sidecar's golden frames"):
                runtime.load(f"{server.url}/{name}", server=options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_not_there_or_has_no_such_model_is_one_line(
    kind: str, repository: Path, serve: Callable[..., Any]
):
    server = serve(kind)
    with pytest.raises(UserError, match=r"must answer; found .*unknown model plug"):
        runtime.load(f"{server.url}/plug")
    with pytest.raises(UserError, match=r"must answer; found .*no version 7"):
        runtime.load(f"{server.url}/cable/7")
    server.stop()
    with pytest.raises(UserError, match=r"must answer; .*--server-wait"):
        runtime.load(f"{server.url}/cable")
    models, port = server.models, server.port
    late = threading.Timer(0.5, lambda: serve(kind, models=models, port=port))
    late.start()
    with runtime.load(f"{server.url}/cable", server=replace(PATIENT, wait_s=120)) as remote:
        assert remote(grey(GOOD)).verdict == "good"
    late.join()


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_are_sent_and_never_told(
    kind: str, tmp_path: Path, serve: Callable[..., Any], capfd: pytest.CaptureFixture[str]
):
    server = serve(kind)
    server.models.authorization = "Basic Z3Vlc3Q6cEBzcy93b3Jk"  # guest:p@ss/word
    host = server.url.partition("://")[2]
    with runtime.load(f"{kind}://guest:p%40ss%2Fword@{host}/cable", server=PATIENT) as remote:
        assert remote(grey(BAD)).verdict == "anomalous"
        assert "guest" not in remote.session.device and "ss" not in remote.session.device.replace("sion", "")
    with pytest.raises(UserError) as refused:
        runtime.load(f"{kind}://guest:secret@{host}/cable", server=PATIENT)
    assert "secret" not in str(refused.value) and "who is there?" in str(refused.value)
    server.models.authorization = "Bearer token-of-the-line"
    (tmp_path / "token").write_text("token-of-the-line\n")
    with runtime.load(f"{server.url}/cable", server=replace(PATIENT, token=tmp_path / "token")) as remote:
        assert remote(grey(BAD)).verdict == "anomalous"
    assert "secret" not in capfd.readouterr().err


def test_a_token_that_is_gone_while_the_line_runs_does_not_end_it(tmp_path: Path, serve: Callable[..., Any]):
    server, token = serve("http"), tmp_path / "token"
    server.models.authorization = "Bearer abc"
    token.write_text("abc")
    with runtime.load(f"{server.url}/cable", server=replace(PATIENT, token=token, deadline_ms=2000.0)) as remote:
        token.unlink()
        server.models.behaviour = "error"  # a request that fails has its connection made anew
        assert remote(grey(GOOD)).verdict == "none"
        server.models.behaviour = "right"
        result = remote(grey(GOOD))
        assert result.verdict == "none" and "--server-token must be a file" in result.reason
        token.write_text("abc")
        wait_until(lambda: remote(grey(GOOD)).verdict == "good")


@pytest.mark.parametrize("kind", KINDS)
def test_by_tls_both_sides_show_certificates(kind: str, tmp_path: Path, serve: Callable[..., Any]):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    mine, key = authority.sign("line")
    server = serve(kind, tls=Tls(*authority.sign("server"), authority.path))
    known = replace(PATIENT, ca=authority.path, certificate=mine, key=key)
    with runtime.load(f"{server.url}/cable", server=known) as remote:
        assert remote(grey(BAD)).verdict == "anomalous" and server.url.startswith(f"{kind}s://")
    other, other_key = stranger.sign("other")
    for refused in (
        replace(known, ca=stranger.path),
        replace(known, ca=None),
        replace(known, certificate=None, key=None),
        replace(known, certificate=other, key=other_key),
        replace(known, ca=key),
    ):
        with pytest.raises(UserError, match="must answer"):
            runtime.load(f"{server.url}/cable", server=refused)
    with pytest.raises(UserError, match="belong together"):
        runtime.load(f"{server.url}/cable", server=replace(known, key=None))
    with pytest.raises(UserError, match="--server-ca must be a file"):
        runtime.load(f"{server.url}/cable", server=replace(known, ca=tmp_path / "none.pem"))


def test_shared_memory_goes_with_the_session_and_after_a_kill_with_the_next_one(
    serve: Callable[..., Any], load: Callable[..., Detector]
):
    server = serve()
    code = (
        "import numpy, os, runtime, signal\n"
        f"remote = runtime.load('{server.url}/cable')\n"
        "remote(numpy.zeros((32, 48, 3), numpy.uint8))\n"
        "print(remote.session._all[0]._region.name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    name = killed.stdout.strip()
    assert killed.returncode == -signal.SIGKILL and (memory.PLACE / name).exists() and name in server.models.regions
    remote = load(server)
    assert remote(grey(GOOD)).verdict == "good"
    assert not (memory.PLACE / name).exists() and name not in server.models.regions
    mine = [region for region in server.models.regions if f"-{os.getpid()}-" in region]
    assert mine and all((memory.PLACE / region).stat().st_mode & 0o077 == 0 for region in mine)
    remote.close()
    assert not server.models.regions and not any((memory.PLACE / region).exists() for region in mine)
    remote.close()
    with pytest.raises(UserError, match="must be open"):
        remote(grey(GOOD))


def test_a_full_shared_memory_sends_the_frames(
    serve: Callable[..., Any], load: Callable[..., Detector], monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    server = serve()
    before = set(memory.PLACE.glob(f"{memory.PREFIX}*"))
    remote = load(server)
    assert remote(grey(BAD)).verdict == "anomalous" and not any(asked.shared for asked in server.models.asked)
    assert set(memory.PLACE.glob(f"{memory.PREFIX}*")) == before


def test_a_larger_batch_takes_larger_memory(serve: Callable[..., Any], load: Callable[..., Detector]):
    server = serve()
    remote = load(server)
    for number in (1, 4, 2, 3):
        found = remote.batch([grey(GOOD), grey(BAD), grey(GOOD), grey(BAD)][:number])
        assert [one.verdict for one in found] == ["good", "anomalous", "good", "anomalous"][:number]
    assert all(asked.shared for asked in server.models.asked)


@pytest.mark.parametrize("shared", [True, False])
def test_a_model_of_one_batch_gets_it_filled_up(
    shared: bool, repository: Path, serve: Callable[..., Any], local: Detector, load: Callable[..., Detector]
):
    server = serve()
    config = server.models.config("cable")
    config.max_batch_size = 0
    for tensor, sides in ((config.input[0], [4, 32, 48, 3]), (config.output[0], [4, 32, 48]), (config.output[1], [4])):
        tensor.dims[:] = sides
        tensor.ClearField("reshape")
    (repository / "cable" / "config.pbtxt").write_text(text_format.MessageToString(config))
    sizes = []
    judge = server.models.infer
    server.models.infer = lambda model, asked, frames: sizes.append(len(frames)) or judge(model, asked, frames)
    remote = load(server, shared_memory=shared)
    frames = [noise(seed) for seed in range(6)]
    assert remote.session.max_batch == 4
    assert all(_same(there, local(frame)) for there, frame in zip(remote.batch(frames), frames, strict=True))
    assert _same(remote(frames[0]), local(frames[0])) and set(sizes) == {4}


def test_frames_that_the_engine_does_not_take_are_refused(serve: Callable[..., Any], load: Callable[..., Detector]):
    session = load(serve()).session
    for frames in (np.zeros((5, 32, 48, 3), np.uint8), np.zeros((1, 32, 48, 3), np.float32), grey(1)):
        with pytest.raises(UserError, match=r"frames must be uint8 \(1..4, 32, 48, 3\)"):
            session.run(frames)
