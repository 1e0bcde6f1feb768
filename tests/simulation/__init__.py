"""A simulated Kafka, and worlds over it: of one partition (`world`), and of the whole topology (`topology_world`)."""
