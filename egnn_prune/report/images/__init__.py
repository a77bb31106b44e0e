"""Tables, figures and the HTML page of the experiments on images."""

from __future__ import annotations

from egnn_prune.report.images.page import image_table, write_image_report

__all__ = ["image_table", "write_image_report"]
