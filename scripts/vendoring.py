"""Writes console/vendor anew: the console's libraries, each as one file that browsers load as it is.

For maintainers, after a change of a version here: needs Node and npm, which nobody else does. Look at the difference,
and commit it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_VENDOR = Path(__file__).resolve().parent.parent / "console" / "vendor"
_BUNDLER = "esbuild@0.28.2"
#: Each file, the packages it is made of, and what it lets the console import.
_FILES = {
    "preact.js": (
        ("preact@11.2.0", "htm@3.1.1"),
        """
        import {h, render, Fragment} from "preact";
        import htm from "htm";
        export {h, render, Fragment};
        export {useCallback, useEffect, useId, useLayoutEffect, useMemo, useReducer} from "preact/hooks";
        export {useRef, useState} from "preact/hooks";
        export const html = htm.bind(h);
        """,
    ),
}


def main(arguments: Sequence[str]) -> int:
    if arguments:
        print(__doc__)
        return 0 if arguments[0] in ("-h", "--help") else 2
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        packages = [package for made_of, _ in _FILES.values() for package in made_of]
        (work / "package.json").write_text('{"private": true, "type": "module"}')
        _run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", _BUNDLER, *packages, at=work)
        lines = [_HEAD]
        for name, (made_of, entry) in _FILES.items():
            (work / name).write_text(entry)
            made = _VENDOR / name
            _run(
                "node_modules/.bin/esbuild", name, "--bundle", "--minify", "--format=esm", "--target=es2022",
                "--legal-comments=none", f"--outfile={made}", at=work,
            )  # fmt: skip
            for package in made_of:
                about = work / "node_modules" / package.rpartition("@")[0]
                licence = json.loads((about / "package.json").read_text())["license"]
                texts = [path for path in about.iterdir() if path.name.upper().startswith("LICENSE")]
                copied = _VENDOR / f"{about.name}.LICENSE"
                copied.write_text(texts[0].read_text(encoding="utf-8"), encoding="utf-8")
                lines.append(f"| {name} | {package} | {licence}: {copied.name} |")
        lines += ["", "| file | SHA-256 |", "|---|---|"]
        lines += [f"| {name} | {hashlib.sha256((_VENDOR / name).read_bytes()).hexdigest()} |" for name in _FILES]
        (_VENDOR / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


_HEAD = """# Vendored libraries

Made by `scripts/vendor` and never changed by hand; only maintainers need Node for it.

| file | made of | licence |
|---|---|---|"""


def _run(*command: str, at: Path) -> None:
    subprocess.run(command, cwd=at, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
