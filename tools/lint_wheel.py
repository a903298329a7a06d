"""Type-check (mypy) and layer-check (import-linter) the package as a wheel installs it; type-check bench and examples.

Neither tool can follow the folder mapping of an editable install, so the wheel is built and unpacked under
build/lint first. Paths in their messages are turned back into those of the repository.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "lint"
BESIDE = ("bench", "examples")
MAPPED = re.compile(r"^moec/(frontend|passes|backends|runtime)/", re.MULTILINE)


def unpack_wheel() -> None:
    for stale in (ROOT / "build" / "lib", SITE):
        shutil.rmtree(stale, ignore_errors=True)
    SITE.mkdir(parents=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*build, "--no-build-isolation", "-w", SITE, ROOT], check=True)
    (wheel,) = SITE.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(SITE)
    for folder in BESIDE:
        shutil.copytree(ROOT / folder, SITE / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))


def check(title: str, command: list[str]) -> bool:
    """Run `command` in the unpacked wheel, print what it says, and tell whether it was content."""
    done = subprocess.run(
        command,
        cwd=SITE,
        env={**os.environ, "PYTHONPATH": str(SITE), "NO_COLOR": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(f"{title}:", MAPPED.sub(r"\1/", done.stdout).strip())
    return done.returncode == 0


def main() -> int:
    unpack_wheel()
    scripts = Path(sys.executable).parent
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    settings += ["--num-workers", "auto"]
    typed = check("mypy", [sys.executable, "-m", "mypy", *settings, *(f"-p{name}" for name in ("moec", *BESIDE))])
    layered = check(
        "import-linter", [str(scripts / "lint-imports"), "--config", str(ROOT / ".importlinter"), "--no-cache"]
    )
    return 0 if typed and layered else 1


if __name__ == "__main__":
    sys.exit(main())
