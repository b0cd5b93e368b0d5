"""Classes of target tokens as data: patterns on the strings of tokens, and predicates."""
