"""What a design takes of a board and of time, as formulas that generated hardware is compared with."""
