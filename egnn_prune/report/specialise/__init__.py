"""Tables, figures and the page of a potential that was made small for one kind of system."""

from __future__ import annotations

from egnn_prune.report.specialise.page import report_table, write_report

__all__ = ["report_table", "write_report"]
