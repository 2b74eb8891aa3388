"""Known weaknesses of the pinned versions, by pip-audit; status 1 where there is one.

Where the list of what is known cannot be reached, a line says so and the status is 0: an index that mirrors packages
alone answers as if nothing were known, so it is first asked for a version that is famous for its weaknesses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FAMOUS = "jinja2/2.4.1"
LIMIT_S, INSTALL_LIMIT_S, AUDIT_LIMIT_S = 10, 300, 600


def is_reached(source: str) -> bool:
    """Whether a source tells of the weaknesses of :data:`FAMOUS`."""
    try:
        with urllib.request.urlopen(f"{source}/{FAMOUS}/json", timeout=LIMIT_S) as answer:
            return bool(json.load(answer).get("vulnerabilities"))
    except (OSError, ValueError):
        return False


def installed(folder: Path) -> Path:
    """The program, in a virtual environment of its own."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "pip-audit"], check=True, timeout=INSTALL_LIMIT_S)
    return folder / "bin" / "pip-audit"


def weaknesses(program: Path) -> list[str]:
    """A line for each that is known of ``constraints.txt``."""
    command = [str(program), "--requirement", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip"]
    done = subprocess.run(
        [*command, "--progress-spinner", "off", "--format", "json"],
        stdout=subprocess.PIPE,
        check=False,
        timeout=AUDIT_LIMIT_S,
    )
    found = json.loads(done.stdout)["dependencies"]
    return [
        f"{one['name']} {one['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for one in found
        for known in one.get("vulns", ())
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="https://pypi.org/pypi", help="what tells of known weaknesses")
    if not is_reached(parser.parse_args().source):
        print("audit: left out, for the list of known weaknesses cannot be reached")
        return 0
    try:
        lines = weaknesses(installed(ROOT / ".venv-audit"))
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        print(f"audit: left out, for pip-audit gave no answer ({type(error).__name__})")
        return 0
    print("\n".join([*lines, f"audit: {len(lines)} known weaknesses in constraints.txt"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
