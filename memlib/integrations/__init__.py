"""Other people's packages, each an extra of its own and imported only where it is asked for."""
