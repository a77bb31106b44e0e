"""The page and the figures of an audit of two calculators, from its ``audit.json`` alone."""

from __future__ import annotations

from egnn_prune.report.audit.page import write_report

__all__ = ["write_report"]
