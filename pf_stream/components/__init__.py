"""What one can know and ask of a running system: components, their state, dead letters, intents to be sent.

Names are imported from the modules, since most of them load a Kafka client.
"""
