"""What can go wrong in a connector through no fault of a single row.

ConnectorError
├── FileUnreadable     the file is missing, or neither CSV nor Parquet as its name says
├── LayoutError        its columns cannot be told apart: says what was found and what to set
├── MatrixError        a correlation matrix that is none
├── KafkaUnreachable   the broker does not answer at the start
├── TopicMissing       the namespace has no topics yet
├── TopicDeleted       the topic was deleted and made again meanwhile
└── DeliveryFailed     Kafka refused a record for good: nothing after it counts as sent
"""

from __future__ import annotations


class ConnectorError(Exception):
    """Base of all errors of connectors."""


class FileUnreadable(ConnectorError):
    """The file is missing, or is not what its name says."""


class LayoutError(ConnectorError):
    """The file's columns do not tell what they hold."""


class MatrixError(ConnectorError):
    """A matrix is not a correlation matrix of the right size."""


class KafkaUnreachable(ConnectorError):
    """The broker does not answer at the start."""


class TopicMissing(ConnectorError):
    """The topic that the connector writes is not there."""


class TopicDeleted(ConnectorError):
    """The topic that the connector writes is another one by now: what was sent is gone with the old one."""


class DeliveryFailed(ConnectorError):
    """Kafka refused a record for good."""
