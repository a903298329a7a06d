"""What the statements of a file declare, once their first words are understood."""

from __future__ import annotations

from dataclasses import dataclass

from moec.diagnostics import Source, Span
from moec.frontend import ast


@dataclass(frozen=True)
class Parameter:
    """A parameter of a definition or a layer; without a default it must be given."""

    name: ast.Name
    default: ast.Expr | None


@dataclass(frozen=True)
class Binding:
    """`name = value : dtype`.  `name` is None for the one expression of a one-line expert."""

    span: Span
    name: ast.Name | None
    value: ast.Expr
    dtype: ast.Expr | None = None


@dataclass(frozen=True)
class InputDeclaration:
    """`input name[shape] : dtype`, one value a token."""

    span: Span
    name: ast.Name
    shape: tuple[ast.Expr, ...]
    dtype: ast.Expr


@dataclass(frozen=True)
class Assertion:
    """`assert condition, "text"`."""

    span: Span
    condition: ast.Expr
    text: str | None


@dataclass(frozen=True)
class Definition:
    """A router or an expert; `damage` counts the statements of the body that were malformed and left out."""

    span: Span
    kind: str
    name: ast.Name
    parameters: tuple[Parameter, ...]
    body: tuple[Binding | InputDeclaration | Assertion, ...]
    damage: int = 0


@dataclass(frozen=True)
class RouterUse:
    """`router call : dtype`."""

    span: Span
    call: ast.Expr
    dtype: ast.Expr | None


@dataclass(frozen=True)
class ExpertsUse:
    """`experts name[count] = value : dtype`, or `shared ...`, where the count may be left out (1)."""

    span: Span
    shared: bool
    name: ast.Name
    count: ast.Expr | None
    value: ast.Expr
    dtype: ast.Expr | None


@dataclass(frozen=True)
class TokensUse:
    """`tokens dropless` or `tokens capacity(...)`."""

    span: Span
    policy: ast.Expr


@dataclass(frozen=True)
class QuantizeUse:
    """`quantize chosen as format`: other experts of a group have another format."""

    span: Span
    chosen: ast.Expr
    format: ast.Expr


@dataclass(frozen=True)
class ApproxUse:
    """`approx rows as int8`."""

    span: Span
    what: ast.Name
    format: ast.Name


@dataclass(frozen=True)
class LossUse:
    """`loss balance(...)` or `loss z(...)`."""

    span: Span
    loss: ast.Expr


@dataclass(frozen=True)
class LayerDeclaration:
    """`layer name(parameters) { body }`; `damage` counts the malformed statements left out of the body."""

    span: Span
    name: ast.Name
    parameters: tuple[Parameter, ...]
    body: tuple[Binding | RouterUse | ExpertsUse | TokensUse | QuantizeUse | ApproxUse | LossUse | Assertion, ...]
    damage: int = 0


@dataclass(frozen=True)
class LoadDeclaration:
    """`load name { bindings }`; `damage` counts the malformed statements left out of the body."""

    span: Span
    name: ast.Name
    body: tuple[Binding, ...]
    damage: int = 0


@dataclass(frozen=True)
class Option:
    """`name value unit` of a statement, such as `max 4 variants`."""

    name: ast.Name
    value: ast.Expr
    unit: ast.Name | None


@dataclass(frozen=True)
class RecompileUse:
    """`recompile when condition for window unit, options`; `unit` is None where the window carries its own."""

    span: Span
    when: ast.Expr
    window: ast.Expr
    unit: ast.Name | None
    options: tuple[Option, ...]


@dataclass(frozen=True)
class SpecialiseUse:
    """`specialise call`, or `approx call` where results may change."""

    span: Span
    approx: bool
    call: ast.Expr


@dataclass(frozen=True)
class ColdestUse:
    """`approx quantize chosen as format`."""

    span: Span
    approx: bool
    chosen: ast.Expr
    format: ast.Expr


@dataclass(frozen=True)
class PageUse:
    """`page group within bytes`."""

    span: Span
    group: ast.Name
    bytes: ast.Expr


@dataclass(frozen=True)
class ShardUse:
    """`shard group over axes as kind, options`; `approx` where results may change."""

    span: Span
    approx: bool
    group: ast.Name
    axes: ast.Expr
    kind: ast.Name
    options: tuple[ast.Expr | Option, ...]


@dataclass(frozen=True)
class ReplicateUse:
    """`replicate chosen copies number`."""

    span: Span
    chosen: ast.Expr
    copies: ast.Expr


@dataclass(frozen=True)
class PinUse:
    """`pin chosen to axis index, axis index`."""

    span: Span
    chosen: ast.Expr
    places: tuple[Option, ...]


@dataclass(frozen=True)
class OverlapUse:
    """`overlap directions with groups in number chunks`; what is not said is empty, or None."""

    span: Span
    directions: tuple[ast.Name, ...]
    groups: tuple[ast.Name, ...]
    chunks: ast.Expr | None


@dataclass(frozen=True)
class SendUse:
    """`approx send direction as format`."""

    span: Span
    approx: bool
    direction: ast.Name
    format: ast.Name


@dataclass(frozen=True)
class CombineUse:
    """`approx combine per axis`."""

    span: Span
    approx: bool
    axis: ast.Name


@dataclass(frozen=True)
class RequireUse:
    """`require condition`."""

    span: Span
    condition: ast.Expr


MeshStatement = ShardUse | ReplicateUse | PinUse | OverlapUse | SendUse | CombineUse | RequireUse
"""What is said only of a layer on a mesh."""

LayoutStatement = RecompileUse | SpecialiseUse | ColdestUse | PageUse | MeshStatement


@dataclass(frozen=True)
class WrittenLayout:
    """A layout as it is written, `layout name for layer ...` or `layout name extends base ...`; one of both is None."""

    span: Span
    name: ast.Name
    layer: ast.Name | None
    base: ast.Name | None
    mesh: ast.Name | None
    load: ast.Name | None
    body: tuple[LayoutStatement, ...]
    damage: int = 0


@dataclass(frozen=True)
class LayoutDeclaration:
    """A layout together with what it extends.

    `damage` counts the malformed statements left out of its own text; `whole`: there are none in what it extends, too.
    """

    span: Span
    name: ast.Name
    layer: ast.Name
    mesh: ast.Name | None
    load: ast.Name | None
    body: tuple[LayoutStatement, ...]
    damage: int = 0
    whole: bool = True


@dataclass(frozen=True)
class AxisDeclaration:
    """`axis name[size] : properties`."""

    span: Span
    name: ast.Name
    size: ast.Expr
    properties: tuple[ast.Call, ...]


@dataclass(frozen=True)
class DeviceDeclaration:
    """`device : properties`."""

    span: Span
    properties: tuple[ast.Call, ...]


@dataclass(frozen=True)
class MeshDeclaration:
    """`mesh name { body }`; `damage` counts the malformed statements left out of the body."""

    span: Span
    name: ast.Name
    body: tuple[AxisDeclaration | DeviceDeclaration, ...]
    damage: int = 0


@dataclass(frozen=True)
class Import:
    """`import names from "path"`."""

    span: Span
    names: tuple[ast.Name, ...]
    path: str
    path_span: Span


@dataclass(frozen=True)
class Declarations:
    """Everything that one file declares, in source order; `damage` counts the malformed statements inside bodies."""

    source: Source
    imports: tuple[Import, ...]
    definitions: tuple[Definition, ...]
    layers: tuple[LayerDeclaration, ...]
    loads: tuple[LoadDeclaration, ...]
    layouts: tuple[LayoutDeclaration, ...]
    meshes: tuple[MeshDeclaration, ...] = ()

    @property
    def damage(self) -> int:
        in_code = sum(one.damage for one in self.definitions) + sum(one.damage for one in self.layers)
        in_places = sum(one.damage for one in self.meshes) + sum(one.damage for one in self.layouts)
        return in_code + in_places + sum(one.damage for one in self.loads)
