"""The module of point charges under its earlier name: `lode.ewald` is a function."""

raise ImportError("lode.ewald is a function, its module is now lode.electrostatics")
