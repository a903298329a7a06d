"""Runs a plan's phases: alone, or as a team of the OpenMP runtime that the process has.

PyTorch loads an OpenMP runtime; its entry points are weak, undefined symbols here, so a process without one runs the
layer in the calling thread.  The team is PyTorch's own pool: no second pool, and no more threads than asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import Call, Phase
from moec.backends.cpu.layer import Plan, Step
from moec.backends.cpu.values import Pointer, Value

ALONE_BELOW = 400_000
"""FLOPs of a call below which waking a team takes longer than it saves (about 10 us of one core)."""


def run_function(b: Builder, plan: Plan) -> Function:
    """Emits `void run(ptr frame, i64 tokens, i64 threads)` with the functions of every phase."""
    functions = {id(phase): _phase(b, plan, phase, n) for n, phase in enumerate(plan.phases)}
    team = _team(b, plan, functions)
    run = b.declare(f"{plan.frame.name}run", [b.ptr, b.i64, b.i64])
    with b.define(run) as (frame, tokens, threads):
        parallel = b.declare("GOMP_parallel", [b.ptr, b.ptr, b.i32, b.i32], linkage="extern_weak")
        worth = (threads > 1) & (tokens * plan.work >= ALONE_BELOW)
        together = worth & ~b.is_null(b.address(parallel))

        def with_team() -> list[Value]:
            b.call(parallel, b.address(team), frame, b.convert(threads, b.i32), b.constant(b.i32, 0))
            return []

        def alone() -> list[Value]:
            _steps(b, plan, functions, frame, b.index(0), b.index(1), lambda: None)
            return []

        b.choose(together, [], with_team, alone)
    return run


def _phase(b: Builder, plan: Plan, phase: Phase, number: int) -> Function:
    function = b.declare(f"{plan.frame.name}phase_{number}_{phase.name}", [b.ptr, b.i64, b.i64])
    with b.define(function) as (frame, thread, threads):
        phase.emit(Call(b, plan.frame, frame, thread, threads))
    return function


def _team(b: Builder, plan: Plan, functions: dict[int, Function]) -> Function:
    """`void team(ptr frame)`: what every thread of a team runs."""
    number = b.declare("omp_get_thread_num", [], b.i32, linkage="extern_weak")
    size = b.declare("omp_get_num_threads", [], b.i32, linkage="extern_weak")
    barrier = b.declare("GOMP_barrier", [], linkage="extern_weak")
    team = b.declare(f"{plan.frame.name}team", [b.ptr])
    with b.define(team) as (frame,):
        thread = b.convert(b.result(number), b.i64)
        threads = b.convert(b.result(size), b.i64)

        def meet() -> None:
            b.call(barrier)

        _steps(b, plan, functions, frame, thread, threads, meet)
    return team


def _steps(
    b: Builder,
    plan: Plan,
    functions: dict[int, Function],
    frame: Pointer,
    thread: Value,
    threads: Value,
    barrier: Callable[[], None],
) -> None:
    """What a thread runs."""

    def intervals(step: Step) -> None:
        for n, interval in enumerate(step.intervals):
            if n:
                barrier()
            for phase in interval:
                if phase.serial:
                    with b.if_(thread.equals(0)):
                        b.call(functions[id(phase)], frame, b.index(0), b.index(1))
                else:
                    b.call(functions[id(phase)], frame, thread, threads)

    for n, step in enumerate(plan.steps):
        if n:
            barrier()
        if step.wave is None:
            intervals(step)
        else:
            step.wave.loop(Call(b, plan.frame, frame, thread, threads), barrier, partial(intervals, step))
