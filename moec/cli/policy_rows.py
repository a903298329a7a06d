"""A layout's policy in sentences, for `moec inspect`."""

from __future__ import annotations

from moec.artifact.policy import Coldest, Policy, Trigger, Window
from moec.artifact.traffic import Load, Observed, Zipf
from moec.cli.sizes import size


def policy_rows(policy: Policy) -> list[tuple[str, str]]:
    """What is said of a policy, line by line: a heading and a text."""
    same = [f"kernels of their own for calls of {', '.join(f'{a:,} to {b:,}' for a, b in policy.tokens)} tokens"]
    other = [f"a capacity between {policy.capacity[0]:g} and {policy.capacity[1]:g}"] if policy.capacity else []
    other += [_coldest(one) for one in policy.quantise]
    rows = [("made for", _load(policy.load))] if policy.load else []
    rows += [("compiles anew", _trigger(one)) for one in policy.triggers]
    if policy.triggers:
        rows.append(("variants", f"at most {policy.max_variants} at a time beside this one"))
    rows += [("may change", f"{text} (the same bits)") for text in same if policy.tokens]
    rows += [("may change", f"{text} (an approximation)") for text in other]
    if policy.page:
        rows.append(("in memory", f"at most {size(policy.page.bytes)} of `{policy.page.experts}`, the rest on disk"))
    return rows or [("nothing", "the layer stays as it is")]


def _load(load: Load) -> str:
    match load.routing:
        case Zipf(exponent):
            routing = f"choices by Zipf's law, exponent {exponent:g}"
        case Observed(counts, _):
            share = max(counts) / max(sum(counts), 1)
            most = f"the most chosen of {len(counts):,} experts has {share:.1%}"
            routing = f"choices as in a trace of {sum(counts):,}: {most}"
        case _:
            routing = "experts chosen equally often"
    return f"{load.name}: {load.tokens[0]:,} to {load.tokens[1]:,} tokens a call, {routing}"


def _trigger(trigger: Trigger) -> str:
    slack = f" (once it does, within {trigger.hysteresis:.0%} is enough)" if trigger.hysteresis else ""
    gain = f"to be {trigger.gain:g} times as fast and " if trigger.gain > 1 else ""
    return f"when {trigger.text} holds for {_window(trigger.window)}{slack}, if a variant is expected {gain}to pay"


def _window(window: Window) -> str:
    return f"{window.calls:,} calls" if window.calls is not None else f"{window.seconds:g} s"


def _coldest(coldest: Coldest) -> str:
    scale = "a channel" if coldest.group is None else f"for {coldest.group} inputs"
    return (
        f"the {coldest.count:,} coldest of `{coldest.experts}` as {coldest.format}, one {coldest.scale} scale {scale}"
    )
