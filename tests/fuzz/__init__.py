"""Random layers of the whole language, compiled and run beside the float64 oracle."""
