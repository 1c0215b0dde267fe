"""The encoders: what there is (`table`), how each is built and cut, where its weights come from (`weights`)."""
