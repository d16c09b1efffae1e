"""What mkdocs asks while it builds the site: the repository's own pages as pages, figures, formulas as MathML."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import figures
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Pages of the repository, and the pictures that they show, under the paths that they have there: their links hold.
OWN = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "cuda_ops/README.md", "integrations/*/README.md"),
    *("examples/*.png", "integrations/*/*.png"),
)
NOT_PAGES = {"hooks.py", "figures.py"}


def on_files(files: Files, config: Any) -> Files:
    """Add the repository's pages and the computed figures."""
    for name in NOT_PAGES:
        files.remove(files.src_uris[name])
    for pattern in OWN:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name, draw in figures.FIGURES.items():
        files.append(File.generated(config, f"figures/{name}.svg", content=draw()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn formulas into MathML, and links into those of the site: see `_linked`."""
    source = Path(page.file.abs_src_path)
    if source.parent.is_relative_to(config.docs_dir):
        markdown = re.sub(r"\$\$(.+?)\$\$", lambda found: convert(found[1], display="block"), markdown, flags=re.S)
        markdown = re.sub(r"\$([^$\n]+)\$", lambda found: convert(found[1]), markdown)
    return re.sub(
        r"(?<!!)\[([^\]]+)\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)",
        lambda found: _linked(found, source, page.file.src_uri, files),
        markdown,
    )


def _linked(found: re.Match[str], source: Path, page: str, files: Files) -> str:
    """A link as the repository has it, for the site: to a page there, or the text alone to what is none."""
    text, target, anchor = found.groups(default="")
    path = (source.parent / target).resolve()
    if not path.exists():
        return found[0]  # mkdocs says that it leads nowhere
    uri = path.relative_to(ROOT).as_posix()
    uri = uri.removeprefix("docs/")
    return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(page))}{anchor})" if uri in files.src_uris else text
