"""Random files with one layer, and what to do with it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.fuzz.choices import Choices
from tests.fuzz.experts import Expert, expert
from tests.fuzz.meshes import layout_on_ranks
from tests.fuzz.routers import router

SIZES = (16, 1, 3, 8, 17, 31, 32, 33, 48, 64, 70, 76, 100, 129, 250)
COUNTS = (4, 1, 2, 3, 5, 8, 9, 17, 33)
TOKENS = (5, 0, 1, 2, 3, 9, 16, 17, 33, 64, 70, 130, 300)
GROUPS = (8, 2, 7, 16, 17, 32, 64, 128)
FORMATS = ("int8", "int4", "ternary", "fp8_e4m3")
ROUTINGS = ("random", "all alike", "few kinds", "no router", "large", "zeros")
LONG = ((1032, 24), (40, 1032))
"""Inner dimensions that are multiplied in steps."""
RANGES = ((1, 16), (17, 256), (1, 1), (300, 5000))
COUNTS_FILE = "counts.json"
NO_WAY = ""
WAYS = (
    "calls",
    "awkward",
    "weights",
    "unchosen",
    "variants",
    "paged",
    "steps",
    "compiled",
    "cuda",
    "ranks",
)
"""Ways of trying a layer beside its kernels alone (tests/fuzz/ways)."""


@dataclass(frozen=True)
class Sample:
    """A file, and how its layer is tried.

    counts     how often each expert was chosen, as the file's `coldest` reads it
    tokens     of the calls
    routing    what the tokens are like
    seed       of the numbers
    variant    which of the instruction sets, of those that can be tried
    training   compile with a backward, and check gradients
    ranges     tokens of a call that a variant is compiled for
    quantised  experts that a variant keeps as codes, their format, its group
    capacity   of a variant, instead of the file's
    way        one of `WAYS`, or `NO_WAY`
    certain    whether the compiler has to take it; else it may say why not (E0610)
    """

    text: str
    counts: tuple[int, ...]
    tokens: tuple[int, ...]
    routing: str
    seed: int
    variant: int
    training: bool
    ranges: tuple[int, int] | None
    quantised: tuple[tuple[int, ...], str, int | None] | None
    capacity: float | None
    way: str
    certain: bool = True

    def __repr__(self) -> str:
        rest = {name: value for name, value in vars(self).items() if name not in ("text", "counts")}
        counts = f"# {COUNTS_FILE}: {json.dumps(self.counts)}\n" if COUNTS_FILE in self.text else ""
        return f"\n{self.text}{counts}# {rest}\n"


def sample(choices: Choices) -> Sample:
    """Any of them."""
    return _Drawing(choices).sample()


class _Drawing:
    """A sample while it is drawn.

    common   divides the sizes of the layer, where it may be the group of a format; else 1
    formats  the names of those that were drawn
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.coded = choices.chance(50)
        self.way = choices.one(WAYS) if choices.chance(60) else NO_WAY
        self.training = not self.coded and choices.chance(90 if self.way == "steps" else 25)
        self.common = choices.one(GROUPS) if self.coded and choices.chance(60) else 1
        self.count = choices.one(COUNTS)
        self.dtype = choices.one(("f32", "bf16", "bf16", "f16"))
        self.sizes = SIZES if self.common == 1 else [self.common * n for n in (1, 2, 3, 5) if self.common * n <= 320]
        self.d, self.ff, self.other = (choices.one(self.sizes) for _ in range(3))
        if self.way == "cuda" and self.common in (1, 2, 7, 8, 17):  # others are mostly refused
            self.common = 1
            self.sizes = (16, 32, 48, 64, 96, 144)
            self.d, self.ff, self.other = (choices.one(self.sizes) for _ in range(3))
        elif self.common == 1 and choices.chance(30):  # rows of one stride, or nearly, with other ends
            self.ff = max(1, self.d + choices.one((-6, -1, 1, 7)))
        if self.common == 1 and self.way != "cuda" and choices.chance(4):
            self.d, self.ff = choices.one(LONG)
        self.definitions: list[str] = []
        self.lines: list[str] = []
        self.formats: list[str] = []
        self.certain = True

    def sample(self) -> Sample:
        choices = self.choices
        routes, routed = router(choices, self.count, self.d), self.expert("kind", self.ff)
        self.definitions += [routes.definition, routed.definition]
        self.lines.append(f"router {routes.call} : {choices.one(('f32', 'f32', 'bf16', 'f16'))}")
        first, given = self.dtype, False
        if self.coded and choices.chance(80):
            first, given = self.stored(routed), choices.chance(25)
            first = f"{first[:-1]}, prequantized = true)" if given else first
        self.lines.append(f"experts routed[{self.count}] = {routed.call} : {first}")
        trained = routed.trained & self.shared(routed, first)
        if self.coded and not given and self.count > 1 and choices.chance(50):
            self.subsets(routed)
        if self.formats and "fp8_e4m3" not in self.formats and choices.chance(60):
            self.lines.append("approx rows as int8")
        limited = self.capacity()
        training = self.training and trained and self.d > 1  # with one column, a bias is a factor's shape
        if training:
            self.lines += [f"loss {loss}(0.01)" for loss in routes.losses if choices.chance(50)]
        body = "\n".join(f"  {line}" for line in self.lines)
        ranges = choices.one(RANGES) if choices.chance(15) else None
        layout = ""
        if ranges and choices.chance(70):  # the artifact brings its code along, in pieces
            layout = f"layout Serve for L {{\n  specialise tokens({ranges[0]}..{ranges[1]})\n}}\n"
        layer = f"layer L(d = {self.d}) {{\n{body}\n}}\n"
        counts = tuple(choices.whole(0, 5) for _ in range(self.count)) if COUNTS_FILE in body else ()
        tokens = choices.one(TOKENS), choices.one(TOKENS)
        routing, seed, variant = choices.one(ROUTINGS), choices.whole(0, 9999), choices.whole(0, 11)
        special = self.special(routed) if not self.formats and self.count > 1 and choices.chance(40) else None
        refit = choices.one((0.5, 1.25, 4.0)) if limited and choices.chance(40) else None
        way = self.way
        if way == "ranks" and "quantize" in body:  # which cannot be spread
            way = "calls"
        if way == "paged":
            layout = "layout Paged for L {\n  page routed within 1 GiB\n}\n"
        elif way == "ranks":
            layout, ranges, special, refit = layout_on_ranks(choices, self.count, body), None, None, None
        return Sample(
            "\n".join(filter(None, ["edition 1\n", *self.definitions, layer, layout])),
            counts,
            tokens,
            routing,
            seed,
            variant,
            training,
            ranges,
            special,
            refit,
            way,
            self.certain,
        )

    def expert(self, name: str, ff: int) -> Expert:
        found = expert(self.choices, name, ff, self.other)
        self.certain = self.certain and found.certain
        return found

    def stored(self, given: Expert, whole: bool = True) -> str:
        """A format for experts; `whole`: of a group, so that it has x's dtype."""
        choices, name = self.choices, self.choices.one(FORMATS)
        self.formats.append(name)
        grouped = self.divides(given) and choices.chance(70)
        options = [f"group = {self.common}" if grouped else "per = channel"]
        if choices.chance(30):
            options.append(f"scale = {choices.one(('f32', 'bf16'))}")
        if whole:
            options.append(f"x = {self.dtype}")
        return f"{name}({', '.join(options)})"

    def divides(self, given: Expert) -> bool:
        return self.common > 1 and all(size % self.common == 0 for size in (self.d, *given.inner))

    def shared(self, routed: Expert, first: str) -> bool:
        """Statements of shared experts, some like the routed ones; whether all of them can be trained."""
        choices, trained = self.choices, True
        for number in range(choices.one((0, 0, 1, 1, 2))):
            own, dtype = routed, first
            if choices.chance(60):
                own = self.expert(f"other{number}", choices.one(self.sizes))
                self.definitions.append(own.definition)
            if own is not routed or choices.chance(50):
                dtype = self.stored(own) if self.coded else self.dtype
            trained = trained and own.trained
            self.lines.append(f"shared common{number}[{choices.one((1, 1, 2, 3))}] = {own.call} : {dtype}")
        return trained

    def subsets(self, routed: Expert) -> None:
        """Statements that give some of the routed experts another format."""
        choices, left = self.choices, list(range(self.count))
        if choices.chance(30):
            cold = choices.whole(1, self.count - 1)
            self.quantize(f'coldest(routed, {cold}, by = "{COUNTS_FILE}")', routed)
            return
        for _ in range(choices.whole(1, 2)):
            if len(left) > 1:
                taken = choices.some(left)
                left = [n for n in left if n not in taken]
                self.quantize(f"experts(routed, {', '.join(map(str, taken))})", routed)

    def quantize(self, which: str, routed: Expert) -> None:
        self.lines.append(f"quantize {which} as {self.stored(routed, whole=False)}")

    def capacity(self) -> bool:
        """Perhaps a statement that limits how many rows an expert takes."""
        choices = self.choices
        if not choices.chance(25):
            return False
        factor, least = choices.one((1.0, 0.3, 0.75, 1.5)), choices.one(("", ", minimum = 1", ", minimum = 4"))
        order = choices.one(("token", "choice", "score"))
        self.lines.append(f"tokens capacity({factor}, order = {order}, overflow = drop{least})")
        return True

    def special(self, routed: Expert) -> tuple[tuple[int, ...], str, int | None]:
        """Experts that a variant keeps as codes."""
        numbers = tuple(self.choices.some(range(self.count)))
        return numbers, self.choices.one(FORMATS), self.common if self.divides(routed) else None
