"""Runs the `.mlir` files beside this one.

A file says in its first lines what to run (`// PASSES: name{option=value} name`) and what to expect: `// CHECK` lines
(LLVM's FileCheck) on the printed module and, with `// REMARKS`, on the remarks after it.  In files under errors/, parts
are parted by `// -----` and each holds `// ERROR: text`, what parsing that part must complain of.
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser, pattern_for_opts

from moec import passes
from moec.dialect import context
from moec.errors import DiagnosticError
from moec.pipeline.ir_text import parse, show

HERE = Path(__file__).parent
CHECKED = sorted(path for path in HERE.glob("*.mlir") if "CHECK" in path.read_text())
ERRORS = [
    pytest.param(part, id=f"{path.stem}-{number}")
    for path in sorted((HERE / "errors").glob("*.mlir"))
    for number, part in enumerate(path.read_text().split("// -----\n"))
]


def run(path: Path) -> str:
    """The module after the passes that the file asks for, then the remarks."""
    text = path.read_text()
    asked = re.search(r"// PASSES: (.*)", text)
    module = parse(text, path.name, context())
    report = passes.run(module, passes.parse_pipeline(asked[1].split() if asked else []))
    again = show(parse(show(module), "printed", context()))
    assert again == show(module), "printing and parsing must not change a module"
    return show(module) + "".join(f"remark: {remark}\n" for remark in report.remarks.entries)


def check(text: str, path: Path) -> bool:
    options = Options(match_filename=str(path), allow_empty=False)
    lines = StringIO(path.read_text())
    matcher = Matcher(options, FInput(str(path), text), Parser(options, lines, *pattern_for_opts(options)))
    return matcher.run() == 0


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    assert check(run(path), path)


@pytest.mark.parametrize("part", ERRORS)
def test_error(part: str) -> None:
    expected = re.search(r"// ERROR: (.*)", part)
    assert expected, "every part of an error file says what it expects"
    with pytest.raises(DiagnosticError) as caught:
        parse(part, "part", context())
    assert expected[1] in str(caught.value)


def test_a_wrong_check_fails(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.mlir"
    wrong.write_text("// CHECK: no such operation\nmodule {\n}\n")
    assert not check(run(wrong), wrong)
