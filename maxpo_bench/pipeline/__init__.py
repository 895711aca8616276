"""A base stage, a cell and the other stages; what is planned, recomputed and compared with what is published.

Seeds are spread over forked workers. Nothing is written to results/ before a stage has ended, and the file that says how it
ended is written last."""
