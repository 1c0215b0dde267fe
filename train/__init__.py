"""From good images to a checkpoint, and how good that checkpoint is."""
