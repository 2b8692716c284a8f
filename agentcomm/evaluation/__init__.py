"""Evaluation: a graph on a task, so that the answer can be trusted."""
