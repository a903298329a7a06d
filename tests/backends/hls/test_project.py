"""From a `.moe` file to a project's folder: what lies there, what is kept, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moec import compile
from moec.artifact import hls
from moec.cli.app import app
from moec.errors import DiagnosticError, MoecError
from moec.fixed.spec import Weights
from moec.pipeline import Compilation

EDGE = Path(__file__).resolve().parents[3] / "examples" / "edge_moe.moe"
SMALL = {"d": 24, "ff": 40}
WHOLE = "hls:zcu102,tokens=16"
TARGET = f"{WHOLE},rtl=no"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile(EDGE, tmp_path_factory.mktemp("made") / "out", defines=SMALL, target=TARGET)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the tile in SystemVerilog."""
    return compile(EDGE, tmp_path_factory.mktemp("whole") / "out", defines=SMALL, target=WHOLE)


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def test_the_folder_is_a_project(made: Path) -> None:
    read = hls.read(made)
    layer = read.project.design.layer
    assert (layer.name, layer.width, layer.routed.hidden, layer.weights) == ("EdgeMoE", 24, 40, Weights.INT8)
    assert [tensor.name for tensor in read.project.inputs] == ["x", "task"]
    assert read.project.guarantees.accumulation == "exact integers"
    assert read.project.design.tokens == 16
    for path in ("src/moe_layer.cpp", "report/index.html", "ir/graph.mlir", "source/edge_moe.moe", "README.md"):
        assert path in read.files
    decided = json.loads(read.files["report/estimate.json"])["decisions"]
    assert not any("/" + EDGE.name in text for text in decided), "where a file lay is nobody's business"
    assert [text.partition(":")[0] for text in decided if "not " not in text][:2] == ["hls-order", "hls-array"]


def test_the_same_file_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    again = compile(EDGE, tmp_path / "again", defines=SMALL, target=TARGET)
    assert (again / hls.MANIFEST).read_bytes() == (made / hls.MANIFEST).read_bytes()


def test_printed_ir_gives_the_same_sources(made: Path, tmp_path: Path) -> None:
    text = tmp_path / "kernels.mlir"
    text.write_text(Compilation(EDGE, None, SMALL, TARGET).emit("kernels"))
    again = hls.read(compile(text, tmp_path / "again", target=TARGET)).project.files
    before = hls.read(made).project.files
    same = [path for path in before if not path.startswith(("source/", "ir/", "report/"))]
    assert {path: again[path] for path in same} == {path: before[path] for path in same}
    with pytest.raises(DiagnosticError, match="the board differs"):
        compile(text, tmp_path / "other", target="hls:kv260,rtl=no")


def test_a_project_is_replaced_and_what_was_built_is_kept(out: Path) -> None:
    (out / "build").mkdir()
    (out / "build" / "moe_layer.xo").write_bytes(b"hours of work")
    compile(EDGE, out, defines=SMALL, target="hls:zcu102,tokens=8,rtl=no")
    assert hls.read(out).project.design.tokens == 8
    assert (out / "build" / "moe_layer.xo").read_bytes() == b"hours of work"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_what_moec_did_not_write_is_not_deleted(out: Path) -> None:
    (out / "notes.txt").write_text("mine")
    refused(out, "E0744", "notes.txt")
    (out / "notes.txt").unlink()
    (out / "src" / "config.h").write_text("// changed by hand\n")
    refused(out, "E0744", "src/config.h")


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(tmp_path, "E0744", "moec.json")
    refused(tmp_path / "thesis.tex", "E0607", "not a folder")
    refused(tmp_path / "nowhere" / "out", "E0607", "is not there")


def refused(out: Path, code: str, said: str, **more: bool) -> None:
    with pytest.raises(DiagnosticError) as caught:
        compile(EDGE, out, defines=SMALL, target=TARGET, **more)
    assert caught.value.diagnostics[0].code == code
    assert said in str(caught.value)


@pytest.mark.parametrize("asked", ["training", "variants"])
def test_what_a_board_does_not_do_is_refused(tmp_path: Path, asked: str) -> None:
    refused(tmp_path / "out", "E0745", asked, **{asked: True})


LAYER = """edition 1
layer Other(d = 16, ff = 16) {{
  router softmax_top(2)
  experts routed[4] = {expert} : {format}
  tokens {tokens}
}}
{more}
"""

MESH = """
mesh Two { axis rank[2] : link(1 GB/s, 1 us) }
layout L for Other on Two { shard routed over rank as ep }
"""


@pytest.mark.parametrize(
    ("expert", "format", "tokens", "more", "said"),
    [
        ("swiglu(d, ff)", "int8(per = channel)", "capacity(1.5)", "", "moe.capacity"),
        ("clamped_swiglu(d, ff)", "int8(per = channel)", "dropless", "", "does not support"),
        ("swiglu(d, ff)", "int8(group = 8)", "dropless", "", "does not support"),
        (
            "swiglu(d, ff)",
            "bf16",
            "dropless",
            MESH,
            "layout",
        ),
    ],
)
def test_layers_that_hardware_does_not_have_are_refused(
    tmp_path: Path, expert: str, format: str, tokens: str, more: str, said: str
) -> None:
    file = tmp_path / "other.moe"
    file.write_text(LAYER.format(expert=expert, format=format, tokens=tokens, more=more))
    with pytest.raises(MoecError, match=said):
        compile(file, tmp_path / "out", target=TARGET)
    assert not (tmp_path / "out").exists()


def test_losses_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "other.moe"
    text = LAYER.format(expert="swiglu(d, ff)", format="bf16", tokens="dropless", more="")
    file.write_text(text.replace("tokens dropless", "tokens dropless\n  loss balance(0.01)"))
    read = hls.read(compile(file, tmp_path / "out", target=TARGET))
    assert read.project.design.layer.weights is Weights.FIXED16


def test_a_layer_that_is_too_large_says_what_would_fit(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError, match=r"tokens=\d+") as caught:
        compile(EDGE, tmp_path / "out", target="hls:zcu102,tokens=8192,rtl=no")
    assert caught.value.diagnostics[0].code == "E0743"


@pytest.mark.skipif(find_spec("circt") is None, reason="CIRCT is not installed")
def test_the_tile_is_written_unless_it_is_left_out(made: Path, whole: Path) -> None:
    files, without = hls.read(whole).files, hls.read(made).files
    assert {path for path in files if path not in without} == {path for path in files if path.startswith("rtl/")}
    assert b"module moec_tile(" in files["rtl/moec_tile.sv"]
    text = Compilation(EDGE, None, SMALL, WHOLE).emit("sv")
    assert text.encode() == files["rtl/moec_tile.sv"]


GOLDENS = {"rtl/": "rtl/goldens", "report/": "goldens/plain/report", "": "cpp/goldens/*"}
"""Where the files below a folder of a project are compared with: those of `rtl/`, of `report/`, all others."""


def compared(path: str) -> bool:
    """Whether a golden is named after the file, or lists it."""
    here = Path(__file__).parent
    start = next(start for start in GOLDENS if path.startswith(start))
    name, folders = path.removeprefix(start), list(here.glob(GOLDENS[start]))
    lists = [folder / "vectors.txt" for folder in folders]
    listed = {line.split()[-1] for file in lists if file.is_file() for line in file.read_text().splitlines()}
    return path in listed or any((folder / f"{name}{end}").is_file() for folder in folders for end in ("", ".txt"))


@pytest.mark.skipif(find_spec("circt") is None, reason="CIRCT is not installed")
def test_every_file_of_a_project_is_compared(whole: Path, made: Path, golden: Callable[[str, str], None]) -> None:
    """With a golden, those of this folder here: a file that is new needs one."""
    files = dict(hls.read(whole).files)
    compilation = Compilation(EDGE, None, SMALL, WHOLE)
    sources = [files.pop(path).decode() for path in list(files) if path.startswith("source/")]
    assert sorted(sources) == sorted(compilation.sources.values())
    for stage in ("graph", "kernels"):
        assert files.pop(f"ir/{stage}.mlir").decode() == compilation.emit(stage)
    assert [path for path in files if not compared(path)] == []
    assert not compared("src/new.h")
    assert not compared("tb/vectors/new.bin")
    manifest = json.loads((made / hls.MANIFEST).read_bytes())
    manifest["files"] = sorted(manifest["files"])
    for varies in ("seal", "compiler"):
        del manifest[varies]
    assert manifest["source"]["name"] == "source/edge_moe.moe"  # and not where it lay
    golden("moec.json", json.dumps(manifest, indent=1) + "\n")


@pytest.mark.skipif(find_spec("circt") is None, reason="CIRCT is not installed")
def test_a_call_may_have_one_token(tmp_path: Path) -> None:
    files = hls.read(compile(EDGE, tmp_path / "out", defines=SMALL, target="hls:kv260,tokens=1")).files
    assert b"module moec_tile(" in files["rtl/moec_tile.sv"]


def test_without_circt_the_tile_is_refused_and_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moec.backends.hls.rtl.project.find_spec", lambda name: None)
    with pytest.raises(DiagnosticError, match="rtl=no"):
        compile(EDGE, tmp_path / "out", defines=SMALL, target="hls:zcu102,tokens=16")
    assert not (tmp_path / "out").exists()


def test_inspect_reads_a_project(made: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(made)])
    assert shown.exit_code == 0, shown.output
    for text in ("EdgeMoE", "4 of 16 experts by softmax, a gate for each of 2 tasks", "gelu of 40, int8", "xczu9eg"):
        assert text in shown.output
    data = json.loads(CliRunner().invoke(app, ["inspect", str(made), "--json", "--ir"]).output)
    assert data["manifest"]["design"]["tokens"] == 16
    assert data["modelled"]["seconds"] > 0
    assert "moe.hls" in data["texts"]["ir/kernels.mlir"]
    assert "moe.route" in CliRunner().invoke(app, ["inspect", str(made), "--ir"]).output


def test_the_command_line_compiles_and_says_why(tmp_path: Path) -> None:
    arguments = ["compile", str(EDGE), "-D", "d=24", "-D", "ff=40", "--target", TARGET]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out"), "--remarks"])
    assert result.exit_code == 0, result.output
    assert "files in" in result.output
    assert "remark: hls-order: expert-major" in result.output
    sources = CliRunner().invoke(app, [*arguments, "--emit", "cpp"])
    assert "#pragma HLS" in sources.output
    unknown = CliRunner().invoke(app, [*arguments, "--emit", "llvm"])
    assert "graph, kernels, cpp" in unknown.output


def test_a_damaged_project_is_not_shown(out: Path) -> None:
    (out / "README.md").write_text("changed")
    shown = CliRunner().invoke(app, ["inspect", str(out)])
    assert shown.exit_code == 1
    assert "README.md is not what moec wrote" in shown.output
