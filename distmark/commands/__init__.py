"""The groups of the command line: each module is one group of commands, a thin shell over services."""
