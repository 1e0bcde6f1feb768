"""What brings the market in: each connector is a pure, restartable sequence of messages."""
