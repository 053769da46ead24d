"""Tests mirror the modules; what several need stands in conftest.py."""
