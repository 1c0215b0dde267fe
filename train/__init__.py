"""From good images to a checkpoint, and how good that checkpoint is."""

from runtime.common.interrupts import quiet_start

quiet_start()
