"""The jobs, in each engine: written as its users would write them. Settings come from the environment, ``BENCH_*``."""
