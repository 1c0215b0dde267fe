import pytest

from runtime.common.addresses import pipeline_without_secrets, without_secrets
from runtime.common.errors import UserError
from runtime.sources.open import SourceSpec
from runtime.sources.urls import parse_url


@pytest.mark.parametrize(
    ("url", "password", "host", "rest", "shown"),
    [
        ("rtsp://u:pa:ss@10.0.0.7:554/h264", "pa:ss", "10.0.0.7:554", "/h264", "rtsp://u@10.0.0.7:554/h264"),
        ("rtsp://u:S[c]t@h/1", "S[c]t", "h", "/1", "rtsp://u@h/1"),
        ("rtsp://u:S/ct@h:554/1?x=1", "S/ct", "h:554", "/1?x=1", "rtsp://u@h:554/1"),
        ("rtsp://u:S?ct@h/1", "S?ct", "h", "/1", "rtsp://u@h/1"),
        ("rtsp://u:S#ct@h/1", "S#ct", "h", "/1", "rtsp://u@h/1"),
        ("rtsp://u:S@ct@h/1", "S@ct", "h", "/1", "rtsp://u@h/1"),
        ("rtsp://u:S%2Fct@[fe80::1]:554/1", "S/ct", "[fe80::1]:554", "/1", "rtsp://u@[fe80::1]:554/1"),
        ("udp://@:5000", "", "@:5000", "", "udp://@:5000"),
        ("http://h/a?mail=a@b", "", "h", "/a?mail=a@b", "http://***"),
        ("srt://h:9000?passphrase=Sct", "", "h:9000", "?passphrase=Sct", "srt://h:9000"),
    ],
)
def test_an_address_is_taken_apart_and_shown_without_its_password(url, password, host, rest, shown):
    parsed = parse_url(url)
    assert (parsed.password, parsed.host, parsed.rest) == (password, host, rest)
    assert without_secrets(url) == shown == SourceSpec.parse(url).name
    again = parse_url(str(parsed))  # percent-encoded, it means the same
    assert (again.user, again.password, again.host, again.rest) == (parsed.user, password, host, rest)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://u:Sec/r@et@h/1",
        "rtsp://u:S[ec/re]t",
        "rtsp:/u:Secret@h/1",
        "ftp://u:Secret@h/1",
        "gst: rtspsrc location=rtsp://u:Secret@h/1 user-pw=Secret",
    ],
)
def test_what_cannot_be_read_in_one_way_is_one_line_without_the_password(text: str):
    with pytest.raises(UserError) as refused:
        SourceSpec.parse(text)
    said = str(refused.value)
    assert "\n" not in said and not [part for part in ("Sec", "cret", "r@et", "S[ec", "re]t") if part in said]


def test_a_pipelines_secrets_are_hidden():
    pipeline = 'rtspsrc location="rtsp://u:pw1@h/1?k=pw2" user-id=u user-pw=pw3 ! srtsrc passphrase="p w4" ! appsink'
    shown = 'rtspsrc location="rtsp://u@h/1" user-id=u user-pw=*** ! srtsrc passphrase=*** ! appsink'
    assert pipeline_without_secrets(pipeline) == shown
    assert SourceSpec.parse(f"gst: {pipeline}").name == f"gst: {shown}"
