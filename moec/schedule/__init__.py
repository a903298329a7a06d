"""Meshes of devices and what runs on them when."""
