"""Dashboard, alert rules and Prometheus' file of docs/deploy/plant: metrics that there are, words that it reads."""

import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.documentation import example
from tests.support.exposed import Exposed, everything
from tests.support.serve_rig import TOKEN, ADelivery, serving, until

promql_parser = pytest.importorskip("promql_parser", reason="pip install '.[dev]'")

PROMETHEUS, PROMTOOL = (shutil.which(name) for name in ("prometheus", "promtool"))
needs_prometheus = pytest.mark.skipif(not (PROMETHEUS and PROMTOOL), reason="Debian's package prometheus")
OF_PROMETHEUS = {"up": {"job", "instance"}}
ADDED_BY_SCRAPE = {"job", "instance"}
DASHBOARD = "plant/grafana/cflow.json"


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    return everything(tmp_path_factory.mktemp("exposed"))


def dashboard() -> dict[str, Any]:
    return json.loads(example(DASHBOARD).read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(example("plant/alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    """Return the panels' queries as Grafana sends them: its own variables filled in."""
    targets = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [expression.replace("$__rate_interval", "1m").replace("$line", ".*") for expression in targets]


QUERIES = [*dashboard_queries(), *(rule["expr"] for rule in alerts())]


def selected(expression: str) -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield of each series in `expression` its name, the labels that it is chosen by and those that are grouped by."""
    series: list[Any] = []
    grouped: set[str] = set()

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            series.append(node)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    assert series, expression
    for one in series:
        yield one.name, {matcher.name for matcher in one.matchers.matchers}, grouped


@pytest.mark.parametrize("expression", QUERIES)
def test_every_series_and_label_is_exposed_by_a_line(expression: str, exposed: Exposed):
    for name, chosen_by, grouped_by in selected(expression):
        known = exposed | OF_PROMETHEUS
        assert name in known
        if known[name]:  # without a sample its labels are not to be seen
            assert chosen_by | grouped_by - {"le"} <= known[name] | ADDED_BY_SCRAPE, name


def test_a_series_that_no_line_has_is_found(exposed: Exposed):
    [(name, chosen_by, grouped_by)] = selected('sum by (camera) (rate(cflow_frames_totals{sources="a"}[5m]))')
    assert (name, chosen_by, grouped_by) == ("cflow_frames_totals", {"sources"}, {"camera"})
    assert name not in exposed and not chosen_by <= exposed["cflow_frames_total"]
    assert {"source", "verdict"} <= exposed["cflow_frames_total"]


def test_the_dashboard_shows_everything_that_a_line_exposes(exposed: Exposed):
    shown = {name for expression in dashboard_queries() for name, _, _ in selected(expression)}
    ours = {name for name in exposed if name.startswith("cflow_")}
    assert len(ours) > 25 and ours == shown - set(OF_PROMETHEUS)


def test_the_lines_of_the_dashboard_are_those_that_have_a_threshold(exposed: Exposed):
    [variable] = dashboard()["templating"]["list"]
    [(metric, label)] = re.findall(r"^label_values\((\w+), (\w+)\)$", variable["query"])
    assert metric in exposed and label in ADDED_BY_SCRAPE


def test_the_panels_lie_beside_each_other_and_ask_the_provisioned_source():
    source = yaml.safe_load(example("plant/grafana/datasources/prometheus.yml").read_text())["datasources"][0]
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


def test_each_alert_says_what_and_how_bad():
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 8
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]


RULE_TESTS = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{series: 'up{{job="cflow", instance="line1:8080"}}', values: '1x8 0x40'}}
      - {{series: 'cflow_source_up{{instance="line1:8080", source="camera:0"}}', values: '1x48'}}
      - {{series: 'cflow_last_judgement_age_seconds{{instance="line1:8080"}}', values: '0x8 60x40'}}
      - {{series: 'cflow_last_judgement_age_seconds{{instance="asked:8080"}}', values: '3600x48'}}
      - {{series: 'cflow_triggers_total{{instance="asked:8080", result="late"}}', values: '0x20 1x28'}}
      - {{series: 'cflow_sink_lost_total{{instance="line1:8080", sink="mqtt"}}', values: '0+0x48'}}
      - {{series: 'cflow_sink_failed_total{{instance="line1:8080", sink="mqtt"}}', values: '0x20 3x28'}}
    alert_rule_test:
      - {{eval_time: 1m, alertname: LineDown}}
      - eval_time: 6m
        alertname: LineDown
        exp_alerts:
          - exp_labels: {{severity: critical, job: cflow, instance: 'line1:8080'}}
            exp_annotations: {{summary: 'line1:8080 does not answer'}}
      - eval_time: 6m
        alertname: NoVerdicts
        exp_alerts:
          - exp_labels: {{severity: critical, instance: 'line1:8080'}}
            exp_annotations: {{summary: 'line1:8080 has judged no frame for 1m 0s'}}
      - {{eval_time: 6m, alertname: SourceLost}}
      - eval_time: 6m
        alertname: AnswersMissing
        exp_alerts:
          - exp_labels: {{severity: critical, instance: 'asked:8080'}}
            exp_annotations: {{summary: 'triggers of asked:8080 were late, lost or refused'}}
      - eval_time: 6m
        alertname: SinkFailing
        exp_alerts:
          - exp_labels: {{severity: warning, instance: 'line1:8080', sink: mqtt}}
            exp_annotations: {{summary: 'mqtt of line1:8080 loses judgements'}}
"""


@needs_prometheus
def test_alerts_fire_when_they_should(tmp_path: Path):
    """By Prometheus' own unit tests of rules: a line that stops, one that waits for triggers, a sink that fails."""
    (tmp_path / "rules_test.yml").write_text(RULE_TESTS.format(rules=example("plant/alerts.yml")))
    command = [str(PROMTOOL), "test", "rules", str(tmp_path / "rules_test.yml")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def prometheus_file(folder: Path, line: str) -> Path:
    """Write Prometheus' file with the address of a line and a token of this machine; return its path."""
    (folder / "token").write_text(TOKEN)
    shutil.copy(example("plant/alerts.yml"), folder)
    text = example("plant/prometheus.yml").read_text()
    for old, new in (("/run/secrets/token", str(folder / "token")), ("line:8080", line), (": 15s", ": 1s")):
        assert old in text
        text = text.replace(old, new)
    (folder / "prometheus.yml").write_text(text)
    return folder / "prometheus.yml"


@pytest.mark.slow
@needs_prometheus
def test_a_real_prometheus_scrapes_a_line_and_answers_the_dashboard(tmp_path: Path):
    with serving(tmp_path, TOKEN) as rig, socket.socket() as free:
        rig.deliveries.append(ADelivery())
        rig.judge(60)
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        line = f"localhost:{rig.server.address.port}"
        config = prometheus_file(tmp_path, line)
        checked = subprocess.run([str(PROMTOOL), "check", "config", str(config)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        words = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        with (tmp_path / "prometheus.log").open("w") as log:
            process = subprocess.Popen([str(PROMETHEUS), *words, f"--web.listen-address={address}"], stderr=log)
            try:
                until(lambda: _asked(address, f'up{{job="cflow", instance="{line}"}} == 1'))
                assert until(lambda: _asked(address, "cflow_frames_total"))[0]["metric"]["source"] == "camera:0"
                for expression in QUERIES:
                    _asked(address, expression)
            finally:
                process.terminate()
                process.wait(60)


def _asked(address: str, expression: str) -> list[dict[str, Any]]:
    """Return what Prometheus finds; nothing where it does not listen yet. Anything but success is an error."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}", timeout=60) as answer:
            found = json.load(answer)
    except (ConnectionError, urllib.error.URLError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code != 503:
            raise
        return []
    assert found["status"] == "success", expression
    result: list[dict[str, Any]] = found["data"]["result"]
    return result
