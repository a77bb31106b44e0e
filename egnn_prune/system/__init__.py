"""The machine below: files, devices, clocks, the version of the code."""
