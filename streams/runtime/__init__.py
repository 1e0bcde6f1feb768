"""How agents are driven: inline in one process, or over Kafka by Faust. The only code that knows Faust."""
