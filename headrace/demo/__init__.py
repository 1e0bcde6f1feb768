"""`headrace demo`: the whole pipeline on a real Kafka and a real TimescaleDB, watched while it runs."""
