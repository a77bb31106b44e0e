"""Where results are kept, so that an interrupted run goes on: folders, locks, rows."""
