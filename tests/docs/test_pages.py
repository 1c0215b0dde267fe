"""What README and docs/ say that can be looked up: links, options, commands, error lines."""

import json
import re
from pathlib import Path

import pytest

import cflow
from runtime.records.log import Log
from runtime.sinks.events import EventSink
from tests.support.documentation import (
    PAGES,
    REMOVED,
    Option,
    all_options,
    links,
    module_of,
    options,
    options_of,
    read,
    source_text,
    words_of,
)
from tests.support.judgements import judgement
from tests.support.log_rows import asked
from tests.support.paths import ROOT

README_BYTES = 9000
NO_HISTORY = tuple(page for page in PAGES if page != "CHANGELOG.md")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_lead_to_files(page: str):
    folder = (ROOT / page).parent
    missing = [target for target in links(page) if not (folder / target.partition("#")[0]).exists()]
    assert not missing


def test_links_are_found():
    assert "docs/demo.png" in links("README.md") and "docs/line.md" in links("README.md")
    assert "production.md#reverse-proxy" in links("docs/troubleshooting.md")


def _is_there(option: Option) -> bool:
    if option.module in REMOVED:
        return True
    if not option.module:
        return option.name in all_options()
    return option.name in options_of(option.module) or option.name in options_of(option.module, option.first)


@pytest.mark.parametrize("page", NO_HISTORY)
def test_every_option_named_exists(page: str):
    assert not [option for option in options(page) if not _is_there(option)]


def test_options_are_looked_up_at_the_command_named_before():
    named = set(options("docs/line.md"))
    assert Option("docs/line.md", "runtime.infer", "--roi", "") in {
        Option(option.page, option.module, option.name) for option in named
    }
    assert not _is_there(Option("", "runtime.infer", "--taps")) and _is_there(Option("", "train.fit", "--taps"))
    assert _is_there(Option("", "", "--taps")) and not _is_there(Option("", "", "--tapes"))


@pytest.mark.parametrize("page", NO_HISTORY)
def test_every_module_that_is_run_exists(page: str):
    run = re.findall(r"python\S* -m ((?:train|export|runtime)[\w.]*)", read(page))
    assert not [module for module in run if not module_of([module]) and not _is_program(module)]


def _is_program(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()


def test_the_page_of_commands_is_the_table_of_cflow():
    rows = re.findall(
        r"^\| `cflow ([\w-]+)` \| `python -m ([\w.]+)` \| (.*) \|$", read("docs/commands.md"), re.MULTILINE
    )
    assert rows == [
        (name, subcommand.module.removesuffix(".main"), subcommand.summary)
        for name, subcommand in cflow.SUBCOMMANDS.items()
    ]


def test_the_error_lines_of_the_troubleshooting_are_those_of_the_source():
    source = re.sub(r"\s+", " ", source_text())
    quoted = re.findall(r"^\| (`[^|]*) \| ", read("docs/troubleshooting.md"), re.MULTILINE)
    pieces = [piece for row in quoted for piece in re.findall(r"`([^`]+)`", row)]
    assert len(pieces) > 40
    names = {"manifest.json", "good"}  # of files, which the source holds as constants of their own
    assert not [piece for piece in pieces if piece not in source and piece not in names]


def test_the_fields_of_an_event_are_those_of_the_table(tmp_path: Path):
    with EventSink(tmp_path, maximum=2.0) as sink:
        sink.write(judgement(0, 1.5))
    [written] = tmp_path.glob("*/event.json")
    table = read("docs/line.md").split("| field of `event.json` |")[1].split("\n\n")[0]
    named = re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\|[^|]*\|", table, re.MULTILINE)))
    assert set(json.loads(written.read_text())) <= set(named)


@pytest.mark.parametrize(
    "table", ["inspections", "runs", "recipes", "audit", "checks", "marks", "comparisons", "shadow"]
)
def test_the_columns_of_the_log_are_those_of_the_page(table: str, tmp_path: Path):
    Log(tmp_path / "i.db").close()
    columns = [row[1] for row in asked(tmp_path / "i.db", f"PRAGMA table_info({table})")]
    shown = read("docs/traceability.md").split(f"| column of `{table}` |")[1].split("\n\n")[0]
    named = re.findall(r"`([a-z_0-9]+)`", "".join(re.findall(r"^\|([^|]*)\|", shown, re.MULTILINE)))
    assert sorted(named) == sorted(columns)


def test_what_no_page_may_hold():
    for page in PAGES:
        assert not re.search(r"/work/|/tmp/|localhost:\d{5}|TODO|@@", read(page)), page


def test_words_of_a_command():
    assert words_of("taskset -c 1 python -m runtime.soak --threads 1") == ["runtime.soak", "--threads", "1"]
    assert module_of(["cflow", "infer"]) == "runtime.infer" and module_of(["make", "demo"]) == ""
    assert Path(ROOT / "runtime/infer.py").is_file()
