"""`make reliability`: attacks the commands as users run them and prints one table; see docs/reliability.md."""
