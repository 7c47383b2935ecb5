"""How the cost of a record grows with what there is much of: ``python -m bench.growth``."""
