"""What is kept of object files, and what goes."""

from __future__ import annotations

import os
from pathlib import Path

from moec.backends.objects import Lent, Objects


def test_what_was_not_used_for_longest_goes() -> None:
    objects = Objects(largest=10)
    objects.put("a", b"1234")
    objects.put("b", b"1234")
    assert objects.get("a") == b"1234"
    objects.put("c", b"1234")
    assert objects.get("b") is None
    assert objects.get("a") == objects.get("c") == b"1234"


def test_the_same_name_again_counts_once() -> None:
    objects = Objects(largest=10)
    objects.put("a", b"1234")
    for _ in range(5):
        objects.put("b", b"123456")
    assert objects.get("a") == b"1234"


def test_one_that_is_too_large_is_not_kept() -> None:
    objects = Objects(largest=10)
    objects.put("a", b"12345678901")
    assert objects.get("a") is None


def test_a_folder_outlives_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "objects"
    Objects(folder=folder).put("a", b"1234")
    assert Objects(folder=folder).get("a") == b"1234"
    assert Objects(folder=folder).get("b") is None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_what_is_damaged_is_nothing(tmp_path: Path) -> None:
    Objects(folder=tmp_path).put("a", b"1234")
    content = (tmp_path / "a").read_bytes()
    for wrong in (b"", content[:-1], content + b"x", content[:-1] + b"5"):
        (tmp_path / "a").write_bytes(wrong)
        assert Objects(folder=tmp_path).get("a") is None


def test_a_folder_is_bounded_by_when_things_were_used(tmp_path: Path) -> None:
    objects = Objects(largest=3 * 36, folder=tmp_path)
    for number, name in enumerate("abc"):
        objects.put(name, b"1234")
        os.utime(tmp_path / name, (number, number))
    assert Objects(largest=3 * 36, folder=tmp_path).get("a") == b"1234"
    objects.put("d", b"1234")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "d"}


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    objects = Objects(folder=tmp_path / "file")
    objects.put("a", b"1234")
    assert objects.get("a") == b"1234"


def test_what_an_artifact_brings_along_is_not_kept_for_others() -> None:
    objects = Objects()
    lent = Lent(objects, {"a": b"1234", "b": b""})
    lent.put("c", b"12")
    assert [lent.get(name) for name in "abcd"] == [b"1234", b"", b"12", None]
    assert objects.kept == {"c": b"12"}
