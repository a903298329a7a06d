"""The FPGA backend: a fixed-point layer and its design to a project that vendor tools and g++ build."""
