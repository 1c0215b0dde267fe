"""Where verdicts leave: each sink with a queue and a thread of its own."""
