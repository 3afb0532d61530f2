"""Energy meters and readings, carbon intensity of grids, embodied emissions of hardware, and prices."""
