"""The versions of the services; docker-compose.kafka.yml pins the same ones, and a test holds them equal."""

KAFKA = "4.1.0"
SCALA = "2.13"
APICURIO = "3.3.3"
POSTGRES = "17"
TIMESCALEDB = "2.19.3"

LOG4J = "2.24.3"
"""The log4j that Kafka 4.1.0 depends on; its slf4j binding must be the same version."""

DEBIAN = "trixie"
"""The Debian release that carries PostgreSQL 17 and TimescaleDB as packages."""
