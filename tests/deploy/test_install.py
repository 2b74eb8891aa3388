"""deploy/install.sh and the Dockerfile that runs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOBODY = 65534
PINS = dict(re.findall(r"^(\S+?)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that any user reaches; pytest's own is closed to others than this one."""
    folder = Path(tempfile.mkdtemp(prefix="t2m-install-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _context(to: Path) -> None:
    """What ``docker build`` sends."""
    lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in lines
    for name in (line.removeprefix("!") for line in lines if line.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, to)


def _wheel(folder: Path, name: str, version: str) -> None:
    """A package without content, where an index has it."""
    (folder / name).mkdir(parents=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / name / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (folder / name / "index.html").write_text(
        f'<a href="{name}-{version.replace("+", "%2B")}-py3-none-any.whl">{name}</a>'
    )


def _interpreter_of_anybody() -> str:
    for python in (sys.executable, "/usr/bin/python3"):
        command = [python, "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], check=False).returncode == 0:
                return python
        except PermissionError:
            continue
    pytest.skip("no Python 3.11 or newer with venv that another user may run")


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_unprivileged_user_with_a_read_only_home_installs_into_an_empty_folder(place: Path) -> None:
    # The dependencies are left out, as `make test` installs them with the same constraints; two stand for PyTorch's.
    home, empty, source, target = place / "home", place / "empty", place / "source", place / "venv"
    for folder in (home, empty, target):
        folder.mkdir()
    home.chmod(0o555)
    _context(source)
    for name in ("torch", "torchvision"):
        _wheel(place / "index", name, f"{PINS[name]}+cpu")
    for path in (empty, target, source, *source.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {
        "HOME": str(home),
        "PYTHON": _interpreter_of_anybody(),
        "TORCH_CPU_INDEX": (place / "index").as_uri(),
        "PIP_NO_DEPS": "1",
        "TMPDIR": str(empty),
    }
    installed = subprocess.run(
        [source / "deploy" / "install.sh", target, "cpu"],
        cwd=empty,
        env=environment,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    assert list(home.iterdir()) == []
    found = {path.name for path in target.glob("lib/python*/site-packages/*.dist-info")}
    assert f"torch-{PINS['torch']}+cpu.dist-info" in found
    packages = next(target.glob("lib/python*/site-packages"))
    # the package has all that it needs, though its sources are gone
    shutil.rmtree(source)
    for package in ("engine", "jobs", "tune", "tag2mask"):
        ours = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.is_file()}
        missing = {path for path in ours if "__pycache__" not in path.parts and not (packages / path).is_file()}
        assert missing == set()
    assert (target / "bin" / "tag2mask").is_file()


def test_neither_a_missing_folder_nor_an_unknown_kind_installs_anything(tmp_path: Path) -> None:
    for arguments, words in (([], "usage"), ([str(tmp_path / "venv"), "gpu"], "'gpu' is neither cuda nor cpu")):
        command = [str(ROOT / "deploy" / "install.sh"), *arguments]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert words in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", sorted((ROOT / "deploy").glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    _checked("shellcheck", script)
    assert os.access(script, os.X_OK)


def test_hadolint_finds_nothing() -> None:
    # DL3008: Debian removes old versions, so that a pinned one cannot be installed for long
    # SC2016: $PATH is to be expanded by the login shell
    _checked("hadolint", "--ignore", "DL3008", "--ignore", "SC2016", ROOT / "deploy" / "Dockerfile")


def _checked(program: str, *arguments: str | Path) -> None:
    path = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{program} is not installed")
    checked = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_image_runs_the_script_for_both_targets_and_not_as_root() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    stages = {
        stage.split("\n")[0].split(" AS ")[1]: stage for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    }
    for kind in ("cpu", "cuda"):
        assert f"deploy/install.sh /opt/tag2mask {kind}\n" in stages[f"install-{kind}"]
        assert f"COPY --from=install-{kind} /opt/tag2mask /opt/tag2mask" in stages[kind]
        users = re.findall(r"^USER (\S+)$", stages["base"] + stages[kind], flags=re.MULTILINE)
        assert users[-1] == "1000"
