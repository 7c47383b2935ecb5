"""Workers as processes: one or several, told about over HTTP, in logs and in spans; and how fast one is.

Names are imported from the modules: each loads what it serves with, and most load a Kafka client.
"""
