"""The `moec` command.

One command a file: `moec/cli/NAME.py` defines `command`, a function whose annotations are Typer options and whose
docstring is the help text. Files here import only the standard library, typer and `moec.errors` at their top; whatever
is heavy (MLIR, torch, lark) is imported inside the function. `app.py` holds the table of commands.
"""
