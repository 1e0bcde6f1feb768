"""The contract: every record and state as Avro, every topic declared once. Knows no Kafka client."""
