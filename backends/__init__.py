"""Backends: what turns a module of kernel-level `moe` operations into something a machine runs."""
