"""Reweighting of training data inside transition windows."""
