"""Figures and tables that need no training: one file per study."""
