"""The contract: every record and state as Avro, every topic declared once. Knows no Kafka client."""

import os

# Of NumPy's and SciPy's BLAS, which read it when they are loaded: with several threads a sum has another order, from
# about 100 symbols on, on a machine with another number of cores, and replay would not be equal to live. It is faster,
# too, where other processes work: threads that wait for each other cost a small problem a hundred times its time.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
