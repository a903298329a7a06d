"""The `moe` dialect over MLIR: its operations, and a context that knows them.

Importing this package imports MLIR; what runs a compiled artifact never does.
"""

from torch_mlir import ir

from moec.dialect.exchange import CollectOp, TakeRowsOp
from moec.dialect.graph import CapacityOp, CombineOp, DispatchOp, ExpertsOp, RouteOp, SharedOp
from moec.dialect.joined import JoinRowsOp, SumRowsOp
from moec.dialect.kernels import ElementOp, GroupedMatmulCombineOp, GroupedMatmulOp, MatmulOp, PlanOp
from moec.dialect.moe import Moe
from moec.dialect.quantised import DequantizeOp, QuantizeOp, QuantizeRowOp, QuantizeRowsOp
from moec.dialect.rows import ChosenOp, OwnOp, RowOp, TakeOp, TopKOp, TopPOp, YieldChoiceOp, YieldOp
from moec.dialect.schedules import ExchangeOp, RunOp, ScheduleOp, Signal
from moec.dialect.training import (
    CountOp,
    DenseGroupSumOp,
    DenseWeightGradientOp,
    GroupSumOp,
    MapOp,
    PutOp,
    RowValuesOp,
    SlotValuesOp,
    WeightGradientOp,
)

__all__ = [
    "CapacityOp", "ChosenOp", "CollectOp", "CombineOp", "CountOp", "DenseGroupSumOp", "DenseWeightGradientOp",
    "DequantizeOp", "DispatchOp", "ElementOp", "ExchangeOp", "ExpertsOp", "GroupSumOp", "GroupedMatmulCombineOp",
    "GroupedMatmulOp", "JoinRowsOp", "MapOp", "MatmulOp", "Moe", "OwnOp", "PlanOp", "PutOp", "QuantizeOp",
    "QuantizeRowOp", "QuantizeRowsOp", "RouteOp", "RowOp", "RowValuesOp", "RunOp", "ScheduleOp", "SharedOp", "Signal",
    "SlotValuesOp", "SumRowsOp", "TakeOp", "TakeRowsOp", "TopKOp", "TopPOp", "WeightGradientOp", "YieldChoiceOp",
    "YieldOp", "context",
]  # fmt: skip


def context() -> ir.Context:
    """A fresh MLIR context in which the `moe` dialect is loaded."""
    fresh = ir.Context()
    with fresh:
        Moe.load()
    return fresh
