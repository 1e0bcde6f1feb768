"""The measurements that the README quotes: `headrace bench --help`. Not part of what is installed."""

import schemas as schemas  # before NumPy, for what it sets
