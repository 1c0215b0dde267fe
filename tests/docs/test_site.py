"""The site of `make docs`: built without a warning, whole, and loading nothing from another host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytest.importorskip("mkdocs", reason="pip install '.[docs]'")
pytest.importorskip("mkdocstrings", reason="pip install '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    return folder


def test_every_page_is_in_the_menu(site: Path):
    menu = (site / "index.html").read_text(encoding="utf-8").split('<div class="wy-menu')[1].split("</nav>")[0]
    pages = {page.relative_to(site).as_posix() for page in site.rglob("*.html")} - {"404.html", "search.html"}
    linked = {target.partition("#")[0] for target in re.findall(r'href="([^"]+)"', menu)}
    assert pages - {"index.html"} <= linked


def test_nothing_is_loaded_from_another_host(site: Path):
    loading = re.compile(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')
    for page in site.rglob("*.html"):
        assert not loading.findall(page.read_text(encoding="utf-8")), page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_options_are_not_cut_at_their_hyphens(site: Path):
    text = (site / "line.html").read_text(encoding="utf-8")
    assert '<code><span class="unbroken">--batch-cameras</span></code>' in text
    blocks = re.findall(r"<pre><code.*?</code></pre>", text, re.DOTALL)
    assert blocks and not any("unbroken" in block for block in blocks)


def test_the_reference_is_made_from_the_docstrings(site: Path):
    text = (site / "api.html").read_text(encoding="utf-8")
    assert "An image score above this is anomalous." in text and 'id="runtime.detector.Detector.stream"' in text
