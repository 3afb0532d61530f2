"""Energy meters and readings, grid intensity, embodied emissions of hardware, price."""
