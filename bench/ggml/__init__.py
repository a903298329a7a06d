"""ggml, llama.cpp's library of tensor operations, by its C interface; nothing here is compiled."""
