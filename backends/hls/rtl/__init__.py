"""The compute tile in SystemVerilog, by CIRCT, and what simulates it."""
