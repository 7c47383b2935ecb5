"""Kafka: connections, batches, administration, reading and sending for tools, a broker for development.

Names are imported from the modules: ``admin``, ``topics``, ``reader`` and ``sender`` load confluent-kafka, ``link`` and
``appender`` load aiokafka, and ``dev`` neither; who needs one does not pay for the others.
"""
