"""Tasks that the workers of a cluster import."""

import os
import time

from stagewise.errors import InputError


def worker(number, seconds):
    """Number, and the process that it was done in."""
    time.sleep(seconds)
    return number, os.getpid()


def refuses(number):
    if number == 1:
        raise InputError("got number 1; expected another; choose it")
    return number
