"""Options that `moec plan` and `moec graph` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="A .moe file, IR (.mlir) at graph level, or an artifact.")]
LayerName = Annotated[str | None, typer.Option("--layer", help="Which layer, where the file holds several.")]
LayoutName = Annotated[str | None, typer.Option("--layout", help="Which layout of the layer, where it has several.")]
Defines = Annotated[
    list[str] | None, typer.Option("--define", "-D", metavar="NAME=VALUE", help="Set a parameter of the layer.")
]
MachineFile = Annotated[
    Path | None, typer.Option("--machine", help="A file of measured figures; by default what the mesh says is reached.")
]
Tokens = Annotated[
    int, typer.Option("--tokens", min=0, help="Tokens of all ranks together; by default the load's largest batch.")
]
Chunks = Annotated[int, typer.Option("--chunks", min=0, help="Cut exchanges into so many, instead of what is best.")]
