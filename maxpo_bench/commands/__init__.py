"""One file per command of `maxpo-bench`, found by its name (new_task.py is new-task): no list to edit.

A file says PLACE, where it stands in --help; HELP, one line; arguments(parser), which adds its arguments; and run(args),
which imports what it needs and returns the exit code. A command's process imports its own file and no other's.
"""
