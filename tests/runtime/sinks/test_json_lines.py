import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.images.view import View, ViewOptions
from runtime.sinks.delivery import Delivery
from runtime.sinks.json_lines import JsonLines, LinesSink, as_json
from tests.support.judgements import judgement
from tests.support.paths import ROOT
from tests.support.waiting import wait_until


def _frames(path: Path) -> list[int]:
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


def test_what_is_no_json_is_refused(tmp_path: Path):
    lines = JsonLines(tmp_path / "lines.jsonl")
    with pytest.raises(ValueError, match="JSON compliant"):
        lines.append({"score": float("nan")})
    lines.close(keep_empty=False)
    lines.close()
    assert not list(tmp_path.iterdir())  # nothing was written, so nothing is left
    (tmp_path / "lines.jsonl").touch()
    JsonLines(tmp_path / "lines.jsonl").close(keep_empty=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "lines.jsonl"]  # it was another's


class AlmostFullDisk(io.FileIO):
    """A file whose disk takes `room` more bytes: what does not fit is left out, as write(2) does."""

    room = 100

    def write(self, data: Any) -> int:
        taken = super().write(bytes(data)[: self.room])
        self.room -= taken
        return taken


def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"frame": -1}\n')
    lines = JsonLines(path)
    lines.close()
    lines._file = AlmostFullDisk(path, "ab")
    with pytest.raises(OSError, match="No space left") as error:
        for i in range(100):
            lines.append({"frame": i})
    lines.close()
    assert error.value.filename == str(path)
    assert path.read_text().endswith("}\n")
    # 13 bytes a line: 7 of 100 bytes are whole, the 8th is taken back
    assert _frames(path) == list(range(-1, 7))


def test_a_disk_that_is_really_full_is_counted_and_named():
    with LinesSink(Path("/dev/full")) as sink, pytest.raises(OSError, match="No space left"):
        sink.write(judgement())
    said: list[str] = []
    delivery = Delivery(LinesSink(Path("/dev/full")), say=said.append)
    for i in range(10):
        delivery.offer(judgement(i))
    delivery.close()
    assert delivery.counts().failed == 10 and len(said) == 1 and "No space left" in said[0]


def test_a_line_says_how_the_view_lies_in_the_cameras_frame():
    plain = judgement(score=1.5)
    [box] = as_json(plain)["boxes"]
    assert box == {"x": 30, "y": 20, "width": 10, "height": 10, "peak": 1.5}  # of 80 x 60 pixels
    assert as_json(replace(plain, view=View())) == as_json(plain)
    turned = as_json(replace(plain, view=View(ViewOptions((10, 20, 60, 80), rotate=90))))
    # turned clockwise, the judged frame's left edge is the region's lower one
    camera_box = {"x": 10 + 20, "y": 20 + 80 - 30 - 10, "width": 10, "height": 10, "peak": 1.5}
    view = {"roi": [10, 20, 60, 80], "rotate": 90}
    assert turned == {**as_json(plain), "view": view, "camera_boxes": [camera_box]}


def test_a_line_has_the_cameras_own_time_where_it_says_one():
    plain = judgement()
    assert "camera_s" not in as_json(plain)
    timed = replace(plain, frame=replace(plain.frame, camera_s=1795817673.3001291))
    assert as_json(timed) == {**as_json(plain), "camera_s": 1795817673.300129}


def test_a_capped_file_keeps_the_newest_lines_in_whole_pieces(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    other = tmp_path / "lines.backup.jsonl"
    other.write_text("mine")
    lines = JsonLines(path, cap_bytes=1600)  # pieces of 100 bytes: 7 lines of 13 or 6 of 14 or 15
    for i in range(500):
        lines.append({"frame": i})
    lines.close()
    pieces = lines.pieces()
    everything = [frame for piece in (*pieces, path) for frame in _frames(piece)]
    assert everything == list(range(everything[0], 500)) and len(pieces) == 15
    total = sum(piece.stat().st_size for piece in (*pieces, path))
    assert 1200 < total <= 1600 and other.read_text() == "mine"

    again = JsonLines(path, cap_bytes=1600)  # a later run goes on numbering
    for i in range(500, 520):
        again.append({"frame": i})
    again.close()
    assert again.pieces()[-1].name > pieces[-1].name
    everything = [frame for piece in (*again.pieces(), path) for frame in _frames(piece)]
    assert everything == list(range(everything[0], 520))


def test_a_line_longer_than_a_piece_is_still_written(tmp_path: Path):
    lines = JsonLines(tmp_path / "lines.jsonl", cap_bytes=16)
    lines.append({"frame": 1})
    lines.append({"frame": 2})
    lines.close()
    assert _frames(tmp_path / "lines.jsonl") == [2] and _frames(lines.pieces()[0]) == [1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"time": 1}\n{"time": "20', b'{"time": 1}\n'),  # the power went
        (b'{"time": "20', b""),
        (b'{"time": 1}\n{"t', b'{"time": 1}\n'),
        (b'{"of": "somebody"}', b'{"of": "somebody"}\n'),  # not ours: nothing of it goes
        (b"", b""),
    ],
)
def test_a_broken_last_line_is_mended_on_opening(tmp_path: Path, before: bytes, after: bytes):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(before)
    lines = JsonLines(path)
    lines.append({"frame": 7})
    lines.close()
    assert path.read_bytes() == after + b'{"frame": 7}\n'


@pytest.mark.parametrize("cap_bytes", [None, 10**6])
@pytest.mark.parametrize("how", ["removed", "renamed", "renamed and made", "copied and emptied", "folder removed"])
def test_lines_go_on_in_a_new_file_where_the_old_one_was_taken_away(tmp_path: Path, how: str, cap_bytes: int | None):
    path = tmp_path / "out" / "lines.jsonl"
    older = tmp_path / "out" / "lines.jsonl.1"
    lines = JsonLines(path, cap_bytes)
    lines.append({"frame": 0})
    if how == "removed":
        path.unlink()
    elif how == "copied and emptied":  # logrotate's copytruncate
        shutil.copy(path, older)
        os.truncate(path, 0)
    elif how == "folder removed":
        shutil.rmtree(path.parent)
    else:
        path.rename(older)
        if how == "renamed and made":  # logrotate's create
            path.touch()
    lines.append({"frame": 1})
    lines.append({"frame": 2})
    lines.close()
    assert _frames(path) == [1, 2]
    assert not older.exists() or _frames(older) == [0]


def test_a_file_that_vanishes_while_a_line_is_written_gets_it_again(tmp_path: Path):
    class Vanishing(io.FileIO):
        def write(self, data: Any) -> int:
            Path(str(self.name)).unlink()
            return super().write(data)

    path = tmp_path / "lines.jsonl"
    lines = JsonLines(path)
    lines._file = Vanishing(path, "ab")
    lines.append({"frame": 1})
    lines.close()
    assert _frames(path) == [1]


APPEND_FOR_EVER = """
import sys
from pathlib import Path
from runtime.sinks.json_lines import LinesSink
from tests.support.judgements import judgement
with LinesSink(Path(sys.argv[1])) as sink:
    print(flush=True)
    for i in range(10**9):
        sink.write(judgement(i, source=sys.argv[2]))
"""


def test_kills_leave_whole_lines_and_none_glued_to_the_next_runs(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    for run in range(6):
        with path.open("ab") as file:
            file.write(b'{"time": "2023-11-14T2' if run % 2 else b"")  # as a power cut leaves one
        command = [sys.executable, "-c", APPEND_FOR_EVER, str(path), str(run)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            enough = 20_000 * (run + 1)
            wait_until(lambda enough=enough: path.stat().st_size > enough)
            child.kill()
    LinesSink(path).close()  # mends what the last one left
    seen: dict[str, list[int]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        seen.setdefault(line["source"], []).append(line["frame"])
    assert sorted(seen) == [str(run) for run in range(6)]
    assert all(frames == list(range(len(frames))) for frames in seen.values())


PRINT_LINES = """
import sys
from runtime.sinks.delivery import Delivery
from runtime.sinks.json_lines import LinesSink
from tests.support.judgements import judgement
delivery = Delivery(LinesSink())
for i in range(int(sys.argv[1])):
    delivery.offer(judgement(i))
delivery.close(float(sys.argv[2]))
counts = delivery.counts()
print(counts.delivered, counts.lost, counts.failed, counts.queued, file=sys.stderr)
"""


def _printing(*arguments: object) -> "subprocess.Popen[bytes]":
    program = [sys.executable, "-c", PRINT_LINES, *map(str, arguments)]
    return subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_lines_on_stdout_are_one_object_a_frame():
    with _printing(3, 60) as child:
        out, error = child.communicate(timeout=120)
    assert child.returncode == 0 and error == b"3 0 0 0\n"
    assert [json.loads(line) for line in out.splitlines()] == [as_json(judgement(i)) for i in range(3)]


def test_a_reader_that_has_gone_ends_nothing():
    child = _printing(300, 60)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    error = child.stderr.read()
    assert child.wait(120) == 0 and error.count(b"\n") == 2  # what went wrong, once, and the counts
    assert error.startswith(b"JSON lines: cannot deliver: Broken pipe") and error.endswith(b"\n0 0 300 0\n")
    child.stderr.close()


def test_a_reader_that_stands_still_loses_lines_but_the_program_ends():
    with _printing(1000, 0.3) as child:  # about 300 kB, where a pipe holds 64
        assert child.stderr is not None
        delivered, lost, failed, queued = map(int, child.stderr.read().split()[-4:])
        assert child.wait(120) == 0
        assert 0 < delivered < 1000 and delivered + lost == 1000 and failed == queued == 0
        assert child.stdout is not None and os.read(child.stdout.fileno(), 1) == b"{"


def test_a_frame_without_a_verdict_says_why_and_has_no_number(tmp_path: Path):
    judged = judgement()
    none = replace(judged, result=judged.result.unjudged("the frame is 3x3 pixels"))
    with LinesSink(tmp_path / "lines.jsonl") as sink:
        sink.write(none)
    line = json.loads((tmp_path / "lines.jsonl").read_text())
    assert (line["verdict"], line["score"], line["reason"], line["boxes"]) == (
        "none",
        None,
        "the frame is 3x3 pixels",
        [],
    )
    assert "reason" not in as_json(judged)
