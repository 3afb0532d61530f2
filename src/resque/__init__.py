"""Forecast what updating a deep learning classifier will cost, and measure what it did cost.

Start with :func:`resque.load_model`, :func:`resque.load_data` and :func:`resque.forecast`. Public names are loaded at
their first use, from the one list in ``__init__.pyi``: importing this package imports nothing heavy.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
