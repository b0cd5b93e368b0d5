"""Reweighting of training samples inside transition windows."""
