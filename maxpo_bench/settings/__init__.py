"""What people write in YAML (task files, params.yaml, claims.yaml): one strict loader, and typed models of every legal key.

A new key is one field of a class in task.py, or in kinds/ where one kind alone has it; task_file.py finds and reads task files.
Imports no torch."""
