"""The tables and figures of studies over seeds."""
