"""A simulated Kafka, and worlds in which owners of a partition stop at any moment."""
