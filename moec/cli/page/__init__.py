"""The page about an adaptation (`moec report`): one HTML file that needs nothing else."""
