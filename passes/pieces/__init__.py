"""The pieces of a layer that runs on several devices, each a layer of its own; `moec.passes.place` is the pass."""
