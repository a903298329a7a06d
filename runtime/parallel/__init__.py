"""Layers over several processes: what one process computes and sends, and when."""
