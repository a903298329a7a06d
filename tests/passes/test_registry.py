"""Passes by their command-line names."""

from __future__ import annotations

import pytest

from moec.errors import DiagnosticError
from moec.passes import PASSES, parse_pass
from moec.passes.fuse_permutation import FusePermutation
from moec.passes.registry import pass_class


@pytest.mark.parametrize("name", PASSES)
def test_every_registered_pass_exists_under_its_own_name(name: str) -> None:
    assert pass_class(name).name == name
    assert parse_pass(name) == pass_class(name)()


def test_options() -> None:
    assert parse_pass("fuse-permutation{direct-max-tokens=8}") == FusePermutation(direct_max_tokens=8)


@pytest.mark.parametrize(
    ("spec", "code", "hint"),
    [
        ("fuse-permutatoin", "E0601", "did you mean `fuse-permutation`?"),
        ("fuse permutation", "E0602", "name{option=value"),
        ("fuse-permutation{max=8}", "E0603", "direct-max-tokens"),
        ("fuse-permutation{direct-max-tokens=many}", "E0604", "int"),
    ],
)
def test_wrong_specs_are_explained(spec: str, code: str, hint: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        parse_pass(spec)
    assert code in str(caught.value)
    assert hint in str(caught.value)
