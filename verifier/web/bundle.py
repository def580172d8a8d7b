"""Writes the page as one file that works from a disk: `python verifier/web/bundle.py dist/kapsel-verify.html`.

Browsers do not load modules or styles from file: addresses, so all of them go into the page, in the order in which they
need each other. Its security policy then names the script and the style by their hashes and allows nothing else. The
output follows from the files alone, so that anybody can compare two copies.
"""

import re
import sys
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent

_IMPORT: Final = re.compile(r'^import (?:\{ ([\w, ]+) \}|\* as (\w+)) from "\./(\w+)\.js";\n', re.MULTILINE)
_IMPORT_LINES: Final = re.compile(r"^import \{\n([^}]*)\n\} from ", re.MULTILINE)
_EXPORT: Final = re.compile(r"^export ((?:async )?function|class|const) (\w+)", re.MULTILINE)
_LINK: Final = '<link rel="stylesheet" href="style.css">'
_SCRIPT: Final = '<script type="module" src="page.js"></script>'
_POLICY: Final = "script-src 'self'; style-src 'self';"


class BundleError(Exception):
    """The page uses something that this small bundler does not know."""


def page() -> str:
    """Return the whole page."""
    script, style = f"\n{_scripts()}", f"\n{(HERE / 'style.css').read_text(encoding='utf-8')}"
    if "</script" in script or "</style" in style:
        raise BundleError("an end tag within a script or a style would end it")
    html = (HERE / "index.html").read_text(encoding="utf-8")
    for old, new in (
        (_POLICY, f"script-src '{_source(script)}'; style-src '{_source(style)}';"),
        (_LINK, f"<style>{style}</style>"),
        (_SCRIPT, f'<script type="module">{script}</script>'),
    ):
        if html.count(old) != 1:
            raise BundleError(f"index.html does not hold exactly once: {old}")
        html = html.replace(old, new)
    return html


def _scripts() -> str:
    """Return all modules that page.js needs, each in a scope of its own, those that others need first."""
    done: dict[str, str] = {}
    _take("page", done, ())
    return "\n".join(done.values())


def _take(name: str, done: dict[str, str], path: tuple[str, ...]) -> None:
    if name in path:
        raise BundleError(f"modules need each other: {' -> '.join((*path, name))}")
    if name in done:
        return
    source = (HERE / f"{name}.js").read_text(encoding="utf-8")
    # An import over several lines is one over one line.
    source = _IMPORT_LINES.sub(lambda found: f"import {{ {' '.join(found[1].split()).rstrip(',')} }} from ", source)
    for found in _IMPORT.finditer(source):
        _take(found[3], done, (*path, name))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(_as_constant, source))
    if unknown := re.search(r"^(import|export)\b.*", body, re.MULTILINE):
        raise BundleError(f"{name}.js has a form of import or export that is not known here: {unknown[0]}")
    exported = ", ".join(found[2] for found in _EXPORT.finditer(source))
    done[name] = f"const ${name} = (() => {{\n{body}return {{ {exported} }};\n}})();\n"


def _as_constant(found: re.Match[str]) -> str:
    names = f"{{ {found[1]} }}" if found[1] else found[2]
    return f"const {names} = ${found[3]};\n"


def _source(content: str) -> str:
    return f"sha256-{b64encode(sha256(content.encode()).digest()).decode()}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    data = page().encode()
    target.write_bytes(data)
    sys.stdout.write(f"{sha256(data).hexdigest()}  {target}\n")
