"""What stands between the suite and the computer: files that are whole or not there, forked workers, numerics.

Nothing here knows what is computed. May be changed when no bit of a result depends on it, or with a golden cell that says so."""
