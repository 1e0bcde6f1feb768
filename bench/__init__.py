"""The measurements that the README quotes: `python -m bench --help`. Not part of what is installed."""
