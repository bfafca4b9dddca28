"""A hook of MkDocs (see mkdocs.yml): the pages at the top of the repository join the site, and links follow them."""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
TOP: Final = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
_LINK: Final = re.compile(r'(?P<before>\]\(|<img src=")(?P<path>[^)#"\s:]+)(?=[)#"])')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the top of the repository."""
    for source, target in TOP.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 # by name
    """Return a page whose links into the repository lead to pages of the site or to the repository's server."""
    folder = ROOT if page.file.src_uri in TOP.values() else ROOT / "docs"
    return _LINK.sub(lambda found: found["before"] + _moved(found["path"], folder, config.repo_url or ""), markdown)


def _moved(path: str, folder: Path, repository: str) -> str:
    """Return a link's target on the site. What is no file of the repository may be code, and stays."""
    target = Path(os.path.normpath(folder / path))
    if not target.exists():
        return path
    name = target.relative_to(ROOT).as_posix()
    if name in TOP:
        return TOP[name]
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{repository}/blob/HEAD/{name}"
