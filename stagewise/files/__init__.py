"""Atomic writing of files and folders, and checked reading of JSON."""
