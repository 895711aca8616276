"""What people write in YAML (task files, params.yaml, claims.yaml): one strict loader, and every legal key with its type and range.

A new key is one line here; imports no torch."""
