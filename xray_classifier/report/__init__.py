"""Figures and pages drawn from numbers that other modules computed."""
