from dataclasses import replace

import pytest

from runtime.images.regions import regions_above
from runtime.sinks import shared_boxes
from runtime.sinks.json_lines import as_json
from tests.support.judgements import judgement


def test_boxes_are_found_once_for_every_sink_and_copy(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def counted(*words):
        calls.append(words)
        return regions_above(*words)

    monkeypatch.setattr(shared_boxes, "regions_above", counted)
    one = judgement(0, 1.5)
    lines = [as_json(each)["boxes"] for each in (one, one.without_picture(), replace(one, late=True))]
    assert len(calls) == 1 and lines[0] and lines.count(lines[0]) == 3
    other = judgement(1, 0.0)
    assert as_json(other)["boxes"] == as_json(replace(one, result=other.result))["boxes"] == [] and len(calls) == 3
