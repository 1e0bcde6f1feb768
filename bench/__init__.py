"""The measurements that the README quotes: `headrace bench --help`. Not part of what is installed."""
