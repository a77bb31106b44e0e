"""The same engine on images: data sets, networks, experiments."""
