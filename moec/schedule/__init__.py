"""Meshes, and schedules of a layer's exchange on them: steps, their order, proofs, predicted and simulated times."""
