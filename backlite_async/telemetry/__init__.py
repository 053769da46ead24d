"""Traces and metrics. `backlite_async.telemetry.prometheus` counts for Prometheus; nothing is imported here.

For OpenTelemetry nothing is to be called: a client traces where an application has set that up.
"""
