"""What a pass is, and how it says why it did or did not do something."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch_mlir import ir

from moec.dialect.places import place


@dataclass(frozen=True)
class Remark:
    """A decision of a pass: what it did or left, where, and why."""

    pass_name: str
    text: str
    where: str

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.text} [{self.where}]"


@dataclass
class Remarks:
    """Collects remarks while passes run."""

    entries: list[Remark] = field(default_factory=list)

    def add(self, by: "Pass", text: str, where: ir.Location) -> None:
        self.entries.append(Remark(by.name, text, place(where)))


@dataclass(frozen=True)
class Pass:
    """A rewrite of a module.

    A subclass is a frozen dataclass: `name` is its name on the command line, its fields are its options (with
    defaults), and `apply` changes the module in place.  It raises `DiagnosticError` for what it refuses.
    """

    name: ClassVar[str]

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        raise NotImplementedError(self.name)
