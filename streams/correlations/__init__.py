"""How a universe's returns move together: the covariance models and what is published of them."""
