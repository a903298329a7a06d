"""Training of layers over several processes: gradients travel back the way that rows came."""
