"""Hardware projects as layers: their C++ or their SystemVerilog, simulated on this machine."""
