"""What a matmul of the IR asks for, and how its epilogue is printed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda import expressions, regions
from moec.backends.cuda.kernel import Argument, Buffer, BufferPointer, Scope, TensorPointer
from moec.backends.cuda.matmul.codes import Codes, codes_of
from moec.backends.cuda.rowcodes import is_quantised, row_codes
from moec.backends.cuda.shares import shares
from moec.backends.cuda.stacks import is_weight
from moec.dialect.joined import join_of
from moec.dialect.parts import part_of


@dataclass(frozen=True)
class Problem:
    """A product of rows [R, inner] with one matrix [columns, inner] of each weight for their expert.

    op          the operation
    lhs         its rows; where the inner dimension is made of segments, those of each
    offsets     of the plan; None: a dense product, whose rows are the tokens
    slots       of the plan
    weights     tensors [E, N, K], or [E, K, N] if `transposed`: of all products, segment after segment
    products    how many sums an element of the result has
    inner       elements of a segment of the inner dimension
    experts     E, of a dense product 1
    per_token   slots that a token has
    gathered    whether rows are found through `slots`
    lhs_type    element type of the rows, i8 where they are quantised; `type` that of the weights
    codes       how the weights are kept where they are quantised; `weights` are codes then
    results     values that the epilogue's results are stored in; None: the rows that are combined afterwards
    part        the plan's experts whose weights these are; None: all
    share       which part of how many its launch's blocks have this product; (0, 1): all of them
    """

    op: ir.Operation
    lhs: tuple[ir.Value, ...]
    offsets: ir.Value | None
    slots: ir.Value | None
    weights: tuple[ir.Value, ...]
    products: int
    experts: int
    columns: int
    inner: int
    per_token: int
    gathered: bool
    transposed: bool
    lhs_type: str
    type: str
    results: tuple[ir.Value, ...] | None
    codes: Codes | None = None
    part: tuple[int, ...] | None = None
    share: tuple[int, int] = (0, 1)

    @property
    def segments(self) -> int:
        """Of how many pieces the inner dimension consists."""
        return len(self.lhs)

    @property
    def bits(self) -> int:
        """Of a weight in memory."""
        return 16 if self.codes is None else self.codes.bits

    @property
    def grouped(self) -> bool:
        """Whether codes have scales of groups."""
        return self.codes is not None and self.codes.group is not None

    @property
    def depth(self) -> int:
        """Elements of the inner dimension that a tile's stage has: 128 bytes of a row."""
        return 128 if self.rounded else 64

    def scale_rows(self, most: int) -> int:
        """How many scales of groups a stage has for a column, each of at most so many inputs."""
        return 0 if self.codes is None else self.codes.scale_rows(self.depth, most)

    def scale_bytes(self, most: int) -> int:
        """Of these."""
        return 0 if self.codes is None else self.codes.scale_bytes * self.scale_rows(most)

    @property
    def counters(self) -> int:
        """How many experts have a counter of tiles in shared memory."""
        return self.experts if self.offsets is not None else 0

    @property
    def rounded(self) -> bool:
        """Whether rows are quantised: codes, whose scales multiply sums."""
        return self.lhs_type == "i8"

    @property
    def alone(self) -> bool:
        """Whether no other product shares the launch."""
        return self.share == (0, 1)

    @property
    def in_f32(self) -> bool:
        """Whether the product is one of f32, on plain cores."""
        return self.lhs_type == "f32" or (self.codes is None and self.type == "f32")

    def operands(self, scope: Scope) -> Operands:
        """Rows and plan, as a kernel takes them."""
        memory = f"const {expressions.MEMORY[self.lhs_type]}*"
        parameters = [f"{memory} lhs{n}" for n in range(self.segments)]
        arguments: list[Argument] = [TensorPointer(rows, memory) for rows in self.lhs]
        if self.rounded:
            arguments = [BufferPointer(row_codes(scope, self.lhs[0]).codes, memory)]
        before, further = self._part_of_plan(scope)
        if self.offsets is None or self.slots is None:
            plan = f"moec::Plan<0, {self.per_token}, false{further}>"
            return Operands(tuple(parameters), tuple(arguments), before, plan, "nullptr, nullptr, tokens")
        parameters += ["const int* offsets", "const int* slots"]
        arguments += [TensorPointer(self.offsets, "const int*"), TensorPointer(self.slots, "const int*")]
        plan = f"moec::Plan<{self.experts}, {self.per_token}, {str(self.gathered).lower()}{further}>"
        return Operands(tuple(parameters), tuple(arguments), before, plan, "offsets, slots, tokens")

    def _part_of_plan(self, scope: Scope) -> tuple[str, str]:
        """Of which experts and blocks the product is: a definition and further arguments of a plan's type."""
        if self.part is None and self.share == (0, 1):
            return "", ""
        before, experts = "", "moec::AllExperts"
        if self.part is not None:
            experts = scope.name("experts")
            before = (
                f"MOEC_CONSTANT int {experts}_numbers[] = {{{', '.join(map(str, self.part))}}};\n"
                f"struct {experts} {{\n"
                f"  MOEC_DEVICE static int number(int expert) {{ return {experts}_numbers[expert]; }}\n"
                "};\n"
            )
        return before, f", {experts}, moec::GridShare<{self.share[0]}, {self.share[1]}>"


@dataclass(frozen=True)
class Operands:
    """Rows and plan of a product in a kernel, whose last parameter is `int tokens`.

    before  definitions that stand before the kernel
    plan    a C++ type, and the `values` of an object of it
    """

    parameters: tuple[str, ...]
    arguments: tuple[Argument, ...]
    before: str
    plan: str
    values: str


def problem(op: ir.Operation) -> Problem:
    """What `moe.matmul`, `moe.grouped_matmul` or `moe.grouped_matmul_combine` asks for.

    Raises Unsupported for weights that are stored in different ways, or in one that there is no kernel for.
    """
    view: Any = op.opview
    codes = codes_of(op, view.weights)
    whole = codes.codes if codes is not None else tuple(view.weights)
    lhs = _segments(view.lhs)
    pieces = [_segments(weight) if len(lhs) > 1 else (weight,) for weight in whole]
    weights = tuple(of[n] for n in range(len(lhs)) for of in pieces) if _alike(lhs, pieces) else ()
    if not weights:
        raise unsupported("cuda", op, "rows and weights that are put together of different pieces")
    if is_quantised(lhs[0]) and codes is None:
        raise unsupported("cuda", op, "rows in int8 with weights that are not quantised")
    experts, *sides = ir.RankedTensorType(weights[0].type).shape
    columns, inner = reversed(sides) if view.transposed else sides
    grouped = op.name != "moe.matmul"
    return Problem(
        op=op,
        lhs=lhs,
        offsets=view.offsets if grouped else None,
        slots=view.slots if grouped else None,
        weights=weights,
        products=len(whole),
        experts=experts,
        columns=columns,
        inner=inner,
        per_token=ir.IntegerAttr(view.slots_per_token).value if grouped else 1,
        gathered=grouped and bool(ir.IntegerAttr(view.gather).value),
        transposed=view.transposed,
        lhs_type="i8" if is_quantised(lhs[0]) else expressions.element_of(view.lhs.type),
        type=expressions.element_of(weights[0].type),
        results=None if op.name == "moe.grouped_matmul_combine" else _stored(op),
        codes=codes,
        part=part_of(op),
    )


def problems(op: ir.Operation) -> list[Problem]:
    """What a product asks for; of `moe.join_rows` each of those whose rows it joins.  Raises Unsupported."""
    if op.name != "moe.join_rows":
        return [problem(op)]
    _, *rows = op.operands
    return [problem(value.owner.operation) for value in rows]


def _stored(op: ir.Operation) -> tuple[ir.Value, ...]:
    """Where results go: those that are joined with others, to where all of them are."""
    join = join_of(op)
    return tuple(op.results) if join is None else tuple(join.results)


def _segments(value: ir.Value) -> tuple[ir.Value, ...]:
    """The pieces of a tensor that `tensor.concat` puts beside each other along axis 1; else the tensor itself."""
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.operation.name != "tensor.concat":
        return (value,)
    if ir.IntegerAttr(owner.operation.attributes["dim"]).value != 1:
        return (value,)
    return tuple(owner.operation.operands)


def _alike(lhs: tuple[ir.Value, ...], weights: list[tuple[ir.Value, ...]]) -> bool:
    """Whether all pieces have the same size."""
    sizes = {ir.RankedTensorType(rows.type).get_dim_size(1) for rows in lhs}
    types = {str(piece.type) for of in weights for piece in of}
    return len(sizes) == len(types) == 1 and all(len(of) == len(lhs) for of in weights)


@dataclass(frozen=True)
class Epilogue:
    """An epilogue as a C++ class, and the arguments of the kernel that it is made of.

    source      the class and the region's function
    parameters  C++ declarations of the kernel's parameters
    initial     the initialiser of an object: `{e0, out0}`
    """

    name: str
    source: str
    parameters: tuple[str, ...]
    arguments: tuple[Argument, ...]
    initial: str


def epilogue(problem: Problem, scope: Scope, name: str, rows: Buffer | None, rows_type: str) -> Epilogue:
    """The epilogue of a product.

    rows  where it stores what is combined afterwards, as elements of `rows_type`
    """
    function = regions.scalar_function(problem.op.regions[0], scope.name(f"{name}_value"), approximate=True)
    memory = expressions.MEMORY[function.results[0] if rows is None else rows_type]
    outs: list[Argument] = [TensorPointer(value, f"{memory}*") for value in problem.results or ()]
    if rows is not None:
        outs = [BufferPointer(rows, f"{memory}*")]
    read = [_whole(element, scope, name) for element in function.elements]
    elements = [element for element, _, _ in read]
    class_name = scope.name(f"{name}_epilogue")
    fixed = [n for n, element in enumerate(elements) if not element.varies_by_column]
    moving = [n for n, element in enumerate(elements) if element.varies_by_column]
    common = {"row": "row", "token": f"slot / {problem.per_token}", "slot": "slot", "column": "0"}
    at = [element.place(**common, expert=expert) for element, expert, _ in read]
    first = [f"moec::load(p{n} + {at[n]})" for n in fixed]
    held = [f"    {expressions.REGISTER[elements[n].dtype]} e{n};" for n in fixed]
    held += [f"    const {elements[n].memory}* e{n};" for n in moving]
    given = [f"row.e{n}" if n in fixed else f"moec::load(row.e{n} + column)" for n in range(len(elements))]
    parameters = [f"const {element.memory}* p{n}" for n, element in enumerate(elements)]
    arguments: list[Argument] = [TensorPointer(element.tensor, f"const {element.memory}*") for element in elements]
    line = [*first, *(f"p{n} + {at[n]}" for n in moving)]
    times = ""
    if problem.rounded:
        parameters.append("const float* scales_of_rows")
        arguments.append(BufferPointer(row_codes(scope, problem.lhs[0]).scales, "const float*"))
        held.append("    float scale;")
        line.append(f"scales_of_rows[{common['token'] if problem.gathered else 'row'}]")
        times = " * row.scale"
    declared = [f"  {text};" for text in parameters]
    sums = [f"sums[{n}]{times}" for n in range(function.arguments)]
    lines = [
        *(table for _, _, table in read if table),
        function.source.rstrip("\n"),
        f"struct {class_name} {{",
        f"  using Out = {memory};",
        f"  static constexpr int results = {len(outs)};",
        *declared,
        *(f"  Out* out{n};" for n in range(len(outs))),
        "  struct Row {",
        *held,
        "  };",
        "  MOEC_DEVICE Row row(int row, int expert, int slot) const {",
        f"    return {{{', '.join(line)}}};",
        "  }",
        f"  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[{function.arguments}],",
        f"                         float (&out)[{len(outs)}]) const {{",
        f"    {function.name}({', '.join((*sums, *given, 'out'))});",
        "  }",
        "  MOEC_DEVICE Out* to(int n) const {",
        f"    return {_chosen(len(outs))};",
        "  }",
        "};",
    ]
    parameters += [f"{memory}* out{n}" for n in range(len(outs))]
    names = [text.rpartition(" ")[2] for text in parameters]
    return Epilogue(
        class_name, "\n".join(lines) + "\n", tuple(parameters), (*arguments, *outs), f"{{{', '.join(names)}}}"
    )  # fmt: skip


def _whole(element: regions.Element, scope: Scope, name: str) -> tuple[regions.Element, str, str]:
    """What is read of a tensor of some experts of a parameter: the parameter, the number there of expert `expert`, and
    the definition of the table that has it.  Any other tensor is read as it is."""
    cut = element.of_experts and not isinstance(element.tensor.owner, ir.Block) and is_weight(element.tensor)
    found = shares(element.tensor) if cut else []
    if len(found) != 1 or found[0].experts is None:
        return element, "expert", ""
    (some,) = found
    table = scope.name(f"{name}_experts")
    numbers = ", ".join(map(str, some.experts or ()))
    definition = f"MOEC_CONSTANT int {table}[] = {{{numbers}}};"
    return replace(element, tensor=some.parameter), f"{table}[expert]", definition


def _chosen(count: int) -> str:
    """Number n of the outs."""
    text = f"out{count - 1}"
    for n in reversed(range(count - 1)):
        text = f"n == {n} ? out{n} : {text}"
    return text
