"""The parts of the packed container: models and coders; :mod:`compress.entropy` joins them."""
