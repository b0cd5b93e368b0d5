"""Bad input is refused before the work starts, in words that say what to do."""
