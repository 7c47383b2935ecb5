"""A year of flights out of New York, for the demonstration, the benchmark and tests: 336,776 departures of 2013.

``data`` reads them and works out, with pandas alone, what must come of them; ``contexts`` is who may report them;
``producer`` sends them; ``refusals`` are those that must not get through; ``results`` is what the topology made of it all;
``worker`` runs the topology; ``screen`` shows it.
"""
