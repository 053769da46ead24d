"""Tests of traces, metrics and health."""
