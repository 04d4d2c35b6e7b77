"""The command line's parsers, a file for each group of commands. Their code is imported when one is called."""
