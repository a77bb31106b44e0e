"""The tables, figures and page of one job."""
