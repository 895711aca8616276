"""`maxpo-bench schema`."""

PLACE = 13
HELP = "write tasks/schema.json, by which an editor completes and checks task files"


def arguments(parser):
    pass


def run(args):
    import json

    from maxpo_bench.machine import files
    from maxpo_bench.settings.task import json_schema
    from maxpo_bench.settings.task_file import root

    path = root() / "tasks" / "schema.json"
    files.write_bytes(path, (json.dumps(json_schema(), indent=1) + "\n").encode())
    print(f"wrote {path}")
    return 0
