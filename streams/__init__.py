"""The dataflow: pure stages, the agents that chain them, and the runtime that drives them."""

import schemas as schemas  # before NumPy, for what it sets
