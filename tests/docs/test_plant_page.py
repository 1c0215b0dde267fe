"""What docs/plant.md says that can be computed or looked up."""

import contextlib
import io
import shlex

import yaml

from runtime.report.plant import main
from tests.support.documentation import blocks, commands, example, read

PAGE = "docs/plant.md"


def test_the_sizing_table_is_what_the_command_prints():
    [line] = [line for line in commands(PAGE) if line.startswith("cflow plant ")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(shlex.split(line)[2:])
    after = read(PAGE).split(f"{line}\n```\n")[1]
    shown = after.split("\n\n# ")[0].strip()
    assert shown.startswith(printed.getvalue().strip() + "\n\n")
    assert "| not measured |" in printed.getvalue() and "warning of the report" in printed.getvalue()


def test_costs_around_the_engine_are_figures_that_were_measured():
    table = read(PAGE).split("| what | cost |")[1].split("\n\n")[0]
    measured = read("docs/measured.md")
    for figure in ("0.31 ms", "3.1 ms", "1.001", "1.26", "2 ms of one core", "8 ms for 1080p"):
        assert figure in table and figure in measured
    assert "not measured" in table


def test_as_many_alerts_as_the_page_says():
    groups = yaml.safe_load(example("plant/alerts.yml").read_text(encoding="utf-8"))["groups"]
    assert sum(len(group["rules"]) for group in groups) == 12 and "- Twelve alerts: " in read(PAGE)


def test_profiles_and_folders_are_those_of_the_compose_file():
    text, composed = read(PAGE), yaml.safe_load(example("plant/compose.yaml").read_text(encoding="utf-8"))
    for service in composed["services"].values():
        assert f"--profile {service['profiles'][0]} up" in text
    assert composed["services"]["line"]["image"] in text
    assert any("cflow triton repository/ cable.onnx" in block for block in blocks(PAGE, "sh"))
    assert "./repository:/models:ro" in composed["services"]["triton"]["volumes"]
