"""Where results go: each sink copies the result topics into a store of its own."""
