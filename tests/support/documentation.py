"""README and docs/ as tests read them: code blocks, commands, words in backticks, links."""

import contextlib
import importlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import cflow
from tests.support.paths import ROOT

PAGES = tuple(
    path.relative_to(ROOT).as_posix() for folder in (ROOT, ROOT / "docs") for path in sorted(folder.glob("*.md"))
)
# of releases before, named where their figures stand
REMOVED = frozenset({"export.carry", "export.cpu_benchmark", "export.forms_benchmark"})


def read(page: str) -> str:
    """Return the text of `page`, a path from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the command lines of the sh blocks, in order; lines that end in a backslash are joined."""
    joined = "".join(blocks(page, "sh")).replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


def links(page: str) -> list[str]:
    """Return the targets of links and images that are no web addresses."""
    targets = re.findall(r"\]\(([^)\s]+)\)", read(page))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


@dataclass(frozen=True)
class Option:
    """An option that a page names, of the command `module` or, where that is "", of any."""

    page: str
    module: str
    name: str
    first: str = ""  # the word behind the command, which may be a subcommand of its own


def options(page: str) -> Iterator[Option]:
    """Yield the options in backticks: of the command that the same words name, else others before in the paragraph."""
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\d+\. )", text):
        module = ""
        for span in re.findall(r"`([^`]+)`", paragraph):
            words = words_of(span)
            named = module_of(words)
            module = named or module
            if named or span.startswith("--"):
                yield from options_in(page, module, words)


def options_in(page: str, module: str, words: list[str]) -> Iterator[Option]:
    """Yield the options among the words of one command."""
    first = next((word for word in words[1:] if not word.startswith("-")), "")
    for word in words:
        if re.fullmatch(r"--[a-z][a-z0-9-]+(=.*)?", word):
            yield Option(page, module, word.partition("=")[0], first)


def words_of(span: str) -> list[str]:
    """Return a command line's words from the command on: without `python -m` and what stands before it."""
    try:
        words = shlex.split(span)
    except ValueError:  # an apostrophe in a sentence
        words = span.split()
    return words[words.index("-m") + 1 :] if "-m" in words else words


def module_of(words: list[str]) -> str:
    """Return the module that `words` begin with, as itself or as a subcommand of cflow; "" where they name none."""
    if not words:
        return ""
    if words[0] == "cflow" and len(words) > 1:
        subcommand = cflow.SUBCOMMANDS.get(words[1])
        return subcommand.module if subcommand else ""
    if words[0] == "runtime.report":
        return "runtime.report.main"
    if words[0] in REMOVED:
        return words[0]
    file = ROOT / f"{words[0].replace('.', '/')}.py"
    return words[0] if file.is_file() and "\ndef command(" in file.read_text(encoding="utf-8") else ""


@cache
def options_of(module: str, first: str = "") -> frozenset[str]:
    """Return the options of a command, as its --help tells them; `first` is tried as a subcommand of its own."""
    said = io.StringIO()
    words = [first, "--help"] if first.isidentifier() else ["--help"]
    # a wide page, or help would cut option names at their hyphens
    wide = patch.dict(os.environ, {"COLUMNS": "1000"})
    with wide, contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        importlib.import_module(module).main(words)
    return frozenset(re.findall(r"--[a-z][a-z0-9-]+", said.getvalue()))


@cache
def all_options() -> frozenset[str]:
    """Return the options of every subcommand."""
    return frozenset().union(*(options_of(subcommand.module) for subcommand in cflow.SUBCOMMANDS.values()))


def source_text() -> str:
    """Return all source, a line each a blank, so that texts over several lines can be found."""
    files = [path for room in ("train", "export", "runtime") for path in sorted((ROOT / room).rglob("*.py"))]
    return " ".join(path.read_text(encoding="utf-8") for path in [*files, ROOT / "cflow.py"])


def example(name: str) -> Path:
    """Return a file of docs/deploy."""
    return ROOT / "docs" / "deploy" / name
