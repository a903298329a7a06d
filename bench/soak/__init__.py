"""Calls from several threads while a layer recompiles and its compiler is killed: what must hold all the time."""
