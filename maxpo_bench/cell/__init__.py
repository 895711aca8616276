"""The two stages that learn: base.py makes a task's initial policies, run.py trains one cell (task, estimator) from them.

Seeds are spread over forked workers (jobs.py). Nothing is written to results/ before a stage has ended, and the file that
says how it ended is written last.
"""

from maxpo_bench.cell.base import load_base, run_base
from maxpo_bench.cell.run import check_cell, run_cell

__all__ = ["check_cell", "load_base", "run_base", "run_cell"]
