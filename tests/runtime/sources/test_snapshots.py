"""An http address that answers one picture a request, asked by a real client."""

from collections.abc import Iterator
from itertools import islice

import pytest

from runtime.common.errors import UserError
from runtime.images.encoding import Encoding
from runtime.images.preprocess import ReadOptions
from runtime.sources.backoff import Backoff
from runtime.sources.camera import CameraRequest
from runtime.sources.live import Live, LiveOptions
from runtime.sources.open import OpenOptions, SourceSpec, open_source
from runtime.sources.snapshots import Snapshots
from runtime.sources.urls import parse_url
from tests.support.snapshot_server import SnapshotServer, jpeg
from tests.support.waiting import wait_until

ODD = "p[a]ss/w?o#r%25d:1"  # as it stands in the address; %25 is a %


@pytest.fixture
def server() -> Iterator[SnapshotServer]:
    running = SnapshotServer()
    yield running
    running.close()


def _open(url: str, said: list[str], fps: float | None = None, **more) -> Live:
    live = LiveOptions(Backoff(first_s=0.01, cap_s=0.05), 5.0, say=said.append)
    source = open_source(SourceSpec.parse(url), OpenOptions(live, CameraRequest(fps=fps), **more))
    assert isinstance(source, Live)
    return source


def test_snapshots_follow_each_other_and_never_count_as_lost(server: SnapshotServer):
    said: list[str] = []
    with _open(f"http://127.0.0.1:{server.port}/snap.jpg?channel=1", said, fps=20) as source:
        frames = list(islice(source, 6))
        assert source.reconnects == 0 and source.state == "live" and said == []
        assert source.encoding == Encoding("file", "JPEG", "RGB", "4:2:0", 95, 8, "full")
    assert frames[0].image.shape == (48, 64, 3) and 50 < frames[0].image.mean() < 90
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})


def test_until_the_next_is_due_nothing_is_asked(server: SnapshotServer):
    url = f"http://127.0.0.1:{server.port}/"
    snapshots = Snapshots(parse_url(url), url, 5.0, every_s=3600)
    assert snapshots.answers()
    ok, first = snapshots.read()
    assert ok and first.shape == (48, 64, 3)
    assert [snapshots.read() for _ in range(3)] == [(True, None)] * 3
    assert server.asked == 2


def test_a_picture_that_is_not_whole_is_a_loss_and_the_next_is_taken(server: SnapshotServer):
    said: list[str] = []
    with _open(f"http://127.0.0.1:{server.port}/", said, fps=50) as source:
        frames = iter(source)
        next(frames)
        server.content = jpeg(50)[:300]
        wait_until(lambda: said)
        assert "is lost" in said[0] and "must be a whole image" in said[0]
        server.content = jpeg(150)
        wait_until(lambda: source.reconnects)
        assert next(frame for frame in frames if frame.image.mean() > 140)


def test_the_bound_of_pixels_holds_for_snapshots(server: SnapshotServer):
    said: list[str] = []
    with _open(f"http://127.0.0.1:{server.port}/", said, fps=50, read=ReadOptions(max_pixels=100)):
        wait_until(lambda: said)
    assert "may have 100 pixels" in said[0]


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_a_sign_in_works_whatever_the_password_holds_and_is_never_shown(scheme: str):
    server = SnapshotServer(scheme, "admin", ODD.replace("%25", "%"))
    said: list[str] = []
    try:
        with _open(f"http://admin:{ODD}@127.0.0.1:{server.port}/snap", said, fps=50) as source:
            next(iter(source))
            assert source.name == f"http://admin@127.0.0.1:{server.port}/snap"
        with pytest.raises(UserError, match="must open; found status 401") as refused:
            _open(f"http://admin:wr[o]ng@127.0.0.1:{server.port}/snap", said)
        assert "wr[o]ng" not in str(refused.value)
    finally:
        server.close()
    assert "ss/w" not in "".join(said)


def test_a_rate_that_would_look_like_silence_is_refused(server: SnapshotServer):
    with pytest.raises(UserError, match=r"within --stall-after 5; found one each 10 s by --camera-fps"):
        _open(f"http://127.0.0.1:{server.port}/", [], fps=0.1)
