"""Tools of the claims: setups, methods, sweeps, recorded runs, and rules from figures to a verdict."""
