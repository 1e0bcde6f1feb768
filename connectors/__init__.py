"""What brings the market in: every connector is a pure, restartable sequence of messages; `sender` sends them."""
