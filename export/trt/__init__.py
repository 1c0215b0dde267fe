"""TensorRT plans: what each version wants, the build, and what was built."""
