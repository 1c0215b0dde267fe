"""The models that reports and comparisons measure, and the libraries that run them."""
