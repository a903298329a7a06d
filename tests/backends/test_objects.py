"""What is kept of object files, and what goes."""

from __future__ import annotations

from moec.backends.objects import Objects


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
