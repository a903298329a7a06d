"""Layers that the tests of fixed-point arithmetic share."""

from __future__ import annotations

from hypothesis import strategies as st

from moec.fixed.spec import Activation, Expert, Layer, Router, Score, Weights


@st.composite
def routers(draw: st.DrawFn, experts: int) -> Router:
    score = draw(st.sampled_from(Score))
    renorm = score is not Score.IDENTITY and draw(st.booleans())
    over = draw(st.sampled_from(["all", "chosen"])) if score is Score.SOFTMAX else "all"
    return Router(
        score=score,
        over=over,
        bias=draw(st.booleans()),
        selection=score is not Score.SOFTMAX and draw(st.booleans()),
        slots=draw(st.integers(1, min(experts, 5))),
        renorm=renorm,
        scale=draw(st.sampled_from([1.0, 0.5, 2.5, 1.0, 7.0])),
        tasks=draw(st.integers(1, 3)),
    )


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    experts = draw(st.integers(1, 9))
    activation = draw(st.sampled_from(Activation))

    def expert() -> Expert:
        return Expert(draw(st.integers(1, 20)), activation, draw(st.booleans()), draw(st.booleans()))

    shared = draw(st.integers(0, 2))
    return Layer(
        name="L",
        width=draw(st.integers(1, 20)),
        experts=experts,
        router=draw(routers(experts)),
        routed=expert(),
        shared=shared,
        common=expert() if shared else None,
        weights=draw(st.sampled_from(Weights)),
    )
