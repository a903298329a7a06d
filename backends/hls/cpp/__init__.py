"""The project in HLS C++: sources, test bench, host programs and the files that tools read."""
