"""What the runtime costs around the session: a file for each measurement of `runtime.overhead`."""
