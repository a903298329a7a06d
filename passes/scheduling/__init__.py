"""What a layer at graph level asks of a mesh: the figures that schedules are chosen by."""
