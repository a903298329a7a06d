"""Boards and targets by what is written behind `hls:`."""

from __future__ import annotations

from pathlib import Path

import pytest

from moec.backends.hls.board import BOARDS, MOST_BYTES, find_board
from moec.backends.hls.target import Target, read_target
from moec.errors import DiagnosticError

MINE = """
name = "mine"
part = "xczu7ev-ffvc1156-2-e"
dsp = 1728
bram = 312
uram = 96
lut = 230400
ff = 460800
ports = 4
port_bits = 128
bandwidth = 19.2e9
clock = 300e6
hbm = false
"""


@pytest.mark.parametrize("name", BOARDS)
def test_boards_that_come_with_moec_can_be_read(name: str) -> None:
    assert find_board(name).name == name


def test_a_board_without_uram_says_so() -> None:
    assert find_board("zcu102").uram == 0


def test_a_users_board_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    assert read_target(f"{path},tokens=64,rtl=no") == Target(find_board(str(path)), False, 64)
    assert find_board(str(path)).platform is None


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (None, "E0742", "for which board"),
        ("", "E0742", "for which board"),
        ("zcu10", "E0740", "did you mean `zcu102`"),
        ("vcu118x", "E0740", "the boards are"),
        ("nowhere.toml", "E0740", "No such file"),
        ("zcu102,token=3", "E0742", "did you mean `tokens`"),
        ("zcu102,tokens=0", "E0742", "a number from 1"),
        ("zcu102,tokens=²", "E0742", "a number from 1"),
        ("zcu102,tokens=1,tokens=2", "E0742", "twice"),
        ("zcu102,rtl=maybe", "E0742", "rtl=no"),
    ],
)
def test_other_targets_are_refused(text: str | None, code: str, said: str) -> None:
    refused(text, code, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dsp = ", "describes no board"),
        (MINE.replace("dsp = 1728", ""), "board.dsp is missing"),
        (MINE.replace('"mine"', '"$(reboot)"'), "board.name"),
        (MINE + "colour = 1", "board.colour"),
        ("#" * (MOST_BYTES + 1), "more than"),
        ("\udcff", "utf-8"),
    ],
)
def test_files_that_describe_no_board_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    refused(str(path), "E0741", said)


def refused(text: str | None, code: str, said: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        read_target(text)
    assert caught.value.diagnostics[0].code == code
    assert said in str(caught.value)
