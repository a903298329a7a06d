"""One MoE layer as a ggml graph, the way llama.cpp builds it: weights once, a graph for each number of tokens."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from bench.ggml.library import F32, TYPES, InitParams, Library
from bench.layer import Layer

TENSORS = 1024  # more than a layer's graph has; the memory is for their descriptions only


@dataclass(frozen=True)
class _Graph:
    context: int
    graph: int
    allocator: int
    x: int
    y: int


class Model:
    """Weights of `layer` in ggml's type `kind`; `repack`: in the order that ggml makes for its faster kernels."""

    def __init__(self, ggml: Library, layer: Layer, kind: str, threads: int, repack: bool) -> None:
        self._ggml, self._shape = ggml, layer.shape
        self._backend = ggml.backend_cpu_init()
        ggml.backend_cpu_set_n_threads(self._backend, threads)
        ordinary = ggml.backend_get_default_buffer_type(self._backend)
        buffers = self._repacking_buffers() if repack else ordinary
        shape, type_ = layer.shape, TYPES[kind]
        self._contexts = [self._context(), self._context()]
        experts, router = self._contexts
        wide = shape.shared * shape.ff
        self._weights = {
            "router": ggml.new_tensor_2d(router, F32, shape.d, shape.experts),
            "gate_up": ggml.new_tensor_3d(experts, type_, shape.d, 2 * shape.ff, shape.experts),
            "down": ggml.new_tensor_3d(experts, type_, shape.ff, shape.d, shape.experts),
        }
        if shape.shared:
            self._weights["shared_gate_up"] = ggml.new_tensor_2d(experts, type_, shape.d, 2 * wide)
            self._weights["shared_down"] = ggml.new_tensor_2d(experts, type_, wide, shape.d)
        self._memory = [
            ggml.backend_alloc_ctx_tensors_from_buft(experts, buffers),
            ggml.backend_alloc_ctx_tensors_from_buft(router, ordinary),
        ]
        for name, weight in layer.weights("bf16").items():
            self._fill(self._weights[name], F32 if name == "router" else type_, weight)
        self._graphs: dict[int, _Graph] = {}

    def _context(self) -> int:
        ggml = self._ggml
        size = TENSORS * ggml.tensor_overhead() + ggml.graph_overhead()
        context: int = ggml.init(InitParams(size, None, True))
        return context

    def _repacking_buffers(self) -> int:
        ggml = self._ggml
        device = ggml.backend_get_device(self._backend)
        name = b"ggml_backend_dev_get_extra_bufts"
        address = ggml.backend_reg_get_proc_address(ggml.backend_dev_backend_reg(device), name)
        kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device) if address else []
        for kind in kinds:
            if not kind:
                break
            if b"REPACK" in ggml.backend_buft_name(kind):
                found: int = kind
                return found
        raise LookupError("this ggml packs no weights for this processor")

    def _fill(self, tensor: int, type_: int, weight: torch.Tensor) -> None:
        """Quantise a weight, several experts at once, and hand it over whole, as a packing buffer wants it."""
        ggml, columns = self._ggml, weight.shape[-1]
        parts = weight if weight.dim() == 3 else weight[None]
        rows = parts.shape[1]
        row_bytes = ggml.row_size(type_, columns)
        data = torch.empty(len(parts) * rows * row_bytes, dtype=torch.uint8)

        def convert(part: int) -> None:
            values = parts[part].float().contiguous()
            at = data.data_ptr() + part * rows * row_bytes
            if type_ == F32:
                ctypes.memmove(at, values.data_ptr(), values.nbytes)
            else:
                ggml.quantize_chunk(type_, values.data_ptr(), at, 0, rows, columns, None)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(convert, range(len(parts))))
        ggml.backend_tensor_set(tensor, data.data_ptr(), 0, data.nbytes)

    def _build(self, tokens: int) -> _Graph:
        g, shape, w = self._ggml, self._shape, self._weights
        c = self._context()
        x = g.new_tensor_2d(c, F32, shape.d, tokens)
        g.set_input(x)
        p = g.soft_max(c, g.mul_mat(c, w["router"], x))
        picks = g.argsort_top_k(c, p, shape.top_k)
        weight = g.get_rows(c, g.reshape_3d(c, p, 1, shape.experts, tokens), picks)  # [1, k, T] in ggml's order of axes
        if shape.renormalise:
            weight = g.reshape_2d(c, weight, shape.top_k, tokens)
            weight = g.div(c, weight, g.sum_rows(c, weight))
            weight = g.reshape_3d(c, weight, 1, shape.top_k, tokens)
        rows = g.reshape_3d(c, x, shape.d, 1, tokens)
        hidden = g.swiglu(c, g.mul_mat_id(c, w["gate_up"], rows, picks))
        out = g.mul(c, g.mul_mat_id(c, w["down"], hidden, picks), weight)  # [d, k, T]
        row = 4 * shape.d
        slots = [g.view_2d(c, out, shape.d, tokens, row * shape.top_k, row * slot) for slot in range(shape.top_k)]
        y = slots[0] if len(slots) > 1 else g.cont(c, slots[0])
        for slot in slots[1:]:
            y = g.add(c, y, slot)
        if shape.shared:
            wide = g.swiglu(c, g.mul_mat(c, w["shared_gate_up"], x))
            y = g.add(c, y, g.mul_mat(c, w["shared_down"], wide))
        g.set_output(y)
        graph = g.new_graph(c)
        g.build_forward_expand(graph, y)
        allocator = g.gallocr_new(g.backend_get_default_buffer_type(self._backend))
        if not g.gallocr_alloc_graph(allocator, graph):
            raise MemoryError("ggml could not allocate its graph")
        return _Graph(c, graph, allocator, x, y)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens [T, d] of any dtype to f32 [T, d]."""
        ggml, x = self._ggml, x.float().contiguous()
        built = self._graphs.get(len(x))
        if built is None:
            built = self._graphs[len(x)] = self._build(len(x))
        y = torch.empty_like(x)
        ggml.backend_tensor_set(built.x, x.data_ptr(), 0, x.nbytes)
        status = ggml.backend_graph_compute(self._backend, built.graph)
        if status:
            raise RuntimeError(f"ggml's graph failed with status {status}")
        ggml.backend_tensor_get(built.y, y.data_ptr(), 0, y.nbytes)
        return y

    def __del__(self) -> None:
        ggml = self._ggml
        for built in getattr(self, "_graphs", {}).values():
            ggml.gallocr_free(built.allocator)
            ggml.free(built.context)
        for memory in getattr(self, "_memory", ()):
            ggml.backend_buffer_free(memory)
        for context in getattr(self, "_contexts", ()):
            ggml.free(context)
        ggml.backend_free(self._backend)
