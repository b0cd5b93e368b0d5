"""The figures of the toy experiment's report."""
