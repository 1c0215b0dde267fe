"""Pages of the site that stand at the repository's root: README, CONTRIBUTING, CHANGELOG, the calibration images'.

A hook of mkdocs (`mkdocs.yml`). On the disk their links hold for a reader of the repository; here they are turned into
those of the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "calibration_data/README.md": "calibration_data.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=_to_site(text, "")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links that lead out of docs/ into those of the site."""
    return _to_site(markdown, "../")


def on_page_content(html: str, **_: Any) -> str:
    """Keep words with hyphens in one line where they are code: an option that is cut in two reads as two."""
    return re.sub(r"(?<!<pre>)<code>[^<]*</code>", _unbroken, html)


def _unbroken(code: re.Match[str]) -> str:
    return re.sub(r"[^\s<>]*-[^\s<>]*", r'<span class="unbroken">\g<0></span>', code[0])


def _to_site(text: str, before: str) -> str:
    for source, page in PAGES.items():
        text = re.sub(rf"\]\({re.escape(before + source)}(?=[)#])", f"]({page}", text)
    return text
