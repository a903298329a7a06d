"""Variants on disk: what is damaged, foreign or too much is not used."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from moec.artifact import container
from moec.artifact.specialisation import Specialisation
from moec.errors import CacheError
from moec.runtime.adapt.cache import Cache, default_folder, key
from tests.artifact.samples import library, manifest

BASE = "ab" * 32
FAST = Specialisation("fast", tokens=(1, 16))


def write(path: Path, base: str = BASE) -> None:
    made = replace(manifest(), specialisation=FAST, base=base, policy=None)
    container.write(path, library(), made, {})


def add(cache: Cache, name: str) -> None:
    with cache.adding(name) as path:
        write(path)


def test_what_was_added_is_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "a" / "b")
    assert cache.get("x", BASE) is None
    add(cache, "x")
    found = cache.get("x", BASE)
    assert found is not None
    assert found.manifest.specialisation == FAST
    assert [path.name for path in cache.folder.iterdir()] == ["x.so"]
    cache.remove("x")
    assert cache.get("x", BASE) is None


def test_what_failed_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "a")

    def fail() -> None:
        with cache.adding("x") as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(cache.folder.iterdir())


@pytest.mark.parametrize("damage", ["byte", "cut", "base"])
def test_what_is_damaged_or_foreign_goes(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path / "a")
    add(cache, "x")
    file = cache.folder / "x.so"
    data = bytearray(file.read_bytes())
    if damage == "byte":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:100])
    else:
        write(file, base="cd" * 32)
    assert cache.get("x", BASE) is None
    assert not file.exists()


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "a")
    add(cache, "x")
    size = (cache.folder / "x.so").stat().st_size
    cache = Cache(tmp_path / "a", largest=2 * size)
    for age, name in ((300, "x"), (200, "y")):
        add(cache, name)
        os.utime(cache.folder / f"{name}.so", (1e9 - age, 1e9 - age))
    assert cache.get("x", BASE) is not None  # used just now
    add(cache, "z")
    assert sorted(path.stem for path in cache.folder.iterdir()) == ["x", "z"]


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(CacheError, match="writable for others"):
        Cache(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="no folder"):
        Cache(tmp_path / "file" / "below")


def test_the_default_folder_and_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "moec" / "variants"
    keys = {
        key(base, specialisation, variant, compiler)
        for base in ("a", "b")
        for specialisation in (FAST, replace(FAST, tokens=(1, 17)))
        for variant in ("avx2", "generic")
        for compiler in ("moec 0.1.0", "moec 0.2.0")
    }
    assert len(keys) == 16
