"""What passes for FPGAs decide: order, array and memories, each from a model and with its reasons."""
