"""How Headrace is run, and the public names for users of it."""
