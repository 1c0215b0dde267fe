"""What every room of the runtime uses: errors in one line, whole files, words of the command line, the machine."""
