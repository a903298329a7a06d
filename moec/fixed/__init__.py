"""Layers in fixed-point arithmetic: what an FPGA computes, on integers; every implementation gives the same bits."""
