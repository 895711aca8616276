"""One file per kind of task, named as its `kind`: the keys that it has besides the common ones of settings/task.py.

MODEL is the class of its task files. A new kind is one file here, found by its name: no list to edit."""
