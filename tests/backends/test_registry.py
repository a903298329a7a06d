"""Targets by name, and what is said of those that are none."""

import pytest

from moec.backends.registry import backend
from moec.errors import DiagnosticError


def test_a_target_is_found_by_its_name() -> None:
    assert backend("cpu").name == "cpu"


@pytest.mark.parametrize(
    ("target", "said"), [("cpo", "cpu"), ("fpga", "targets are"), ("cpu:avx2", "no options"), ("cpu:", "no options")]
)
def test_other_targets_are_refused_with_a_fix(target: str, said: str) -> None:
    with pytest.raises(DiagnosticError) as refused:
        backend(target)
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "E0702"
    assert diagnostic.fix is not None
    assert said in f"{diagnostic.message} {diagnostic.fix.text}"
