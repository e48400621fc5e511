"""Hooks of mkdocs: links that leave docs/, and equations as MathML.

The pages are read in the repository as much as on the site. There a link to `../README.md` and an
equation in LaTeX are right as they stand; here the one has no page to go to, and the other would
need a script from the network.
"""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

DOCS = Path(__file__).parent
LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[\w-]+)?\)")
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"(?<![\w$\\])\$([^$\n`]+(?:\n[^$\n`]+)?)\$(?![\w$])")
CODE = re.compile(r"(^```.*?^```[^\n]*$|^(?: {4}[^\n]*\n)+|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text as mkdocs is to read it; code stays as it is."""
    folder = (DOCS / page.file.src_uri).parent
    parts = CODE.split(markdown)
    for i in range(0, len(parts), 2):
        text = LINK.sub(lambda found: _link(found, folder), parts[i])
        text = DISPLAY.sub(lambda found: _block(found[1]), text)
        parts[i] = INLINE.sub(lambda found: convert(" ".join(found[1].split())), text)
    return "".join(parts)


def _block(latex: str) -> str:
    return f'<div style="margin: 1em 0">{convert(latex.strip(), display="block")}</div>'


def _link(found: re.Match[str], folder: Path) -> str:
    """A link out of docs/ as the file's name; ValueError where there is no such file."""
    target = (folder / found[2]).resolve()
    if target.is_relative_to(DOCS):
        return found[0]
    if not target.exists():
        raise ValueError(f"{folder}: a link goes to {found[2]}, which does not exist")
    return f"{found[1]} (`{target.relative_to(DOCS.parent)}`)"
