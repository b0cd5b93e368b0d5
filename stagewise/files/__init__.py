"""Files that are whole or not there, and JSON of other people."""
