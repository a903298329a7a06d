"""Make the virtual environment that `make demo` and `make test` use, showing what goes on.

Uses the standard library only, and syntax that an old Python still reads, so that it can say that it is too old.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time

OLDEST = (3, 11)
NEWER = ["python3.14", "python3.13", "python3.12", "python3.11"]
LINKERS = ["ld", "ld.lld", "cc", "clang", "gcc"]


def require_python():
    """Go on under a newer interpreter of this machine if this one is too old, or say what to install."""
    if sys.version_info >= OLDEST:
        return
    for name in NEWER:
        found = shutil.which(name)
        if found:
            os.execv(found, [found] + sys.argv)
    sys.exit(
        "moec needs Python %d.%d or newer; this is %s.\n" % (OLDEST[0], OLDEST[1], sys.version.split()[0])
        + "Install one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv) or name it: "
        + "make PYTHON=/path/to/python3.11"
    )


def make_venv(python, venv):
    """Create `venv` unless a working one is there."""
    if os.path.exists(python) and subprocess.call([python, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0:
        return
    print("Making the virtual environment %s (Python %s)" % (venv, sys.version.split()[0]))
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if made.returncode:
        sys.exit(
            made.stdout.decode(errors="replace")
            + "\nPython could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
        )


def install(python, extras):
    """pip install -e .[extras] under constraints.txt: one moving line on a terminal, a line a package elsewhere.

    Nothing is compiled to bytecode: that takes as long as all else, and Python does it by itself for what is imported.
    """
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", "--progress-bar", "off"]
    command += ["-c", "constraints.txt", "-e", ".[%s]" % ",".join(extras)]
    terminal = sys.stdout.isatty()
    begun = time.time()
    log = []
    last = ""
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for raw in pip.stdout:
        line = raw.decode(errors="replace").rstrip()
        log.append(line)
        words = line.split()
        if not words or words[0] not in ("Collecting", "Building", "Installing"):
            continue
        note = "collecting " + words[1] if words[0] == "Collecting" else words[0].lower() + " ..."
        if note == last:
            continue
        last = note
        note = "  %4.0f s  %s" % (time.time() - begun, note)
        if terminal:
            sys.stdout.write("\r\033[K" + note[: shutil.get_terminal_size().columns - 1])
        else:
            sys.stdout.write(note + "\n")
        sys.stdout.flush()
    if terminal:
        sys.stdout.write("\r\033[K")
    if pip.wait():
        sys.exit("\n".join(log[-40:]) + "\n\npip could not install what moec needs; its last words are above.")
    print("Installed in %.0f s" % (time.time() - begun))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", required=True)
    parser.add_argument("--extras", required=True, help="comma-separated extras of pyproject.toml")
    parser.add_argument("--stamp", required=True, help="file written once everything is installed")
    options = parser.parse_args()
    require_python()
    extras = options.extras.split(",")
    if not any(shutil.which(name) for name in LINKERS):
        print("No linker on this machine (looked for %s): installing ziglang, which carries one" % ", ".join(LINKERS))
        extras.append("linker")
    python = os.path.join(options.venv, "bin", "python")
    make_venv(python, options.venv)
    print("Installing moec[%s] (a minute or two the first time)" % ",".join(extras))
    install(python, extras)
    with open(options.stamp, "w") as stamp:
        stamp.write("\n".join(extras) + "\n")


if __name__ == "__main__":
    main()
