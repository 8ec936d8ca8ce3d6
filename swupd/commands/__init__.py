"""One module for each subcommand, imported only when it is asked for.

Every module has the four names of `swupd.cli.Command`: HELP, EXAMPLES, `add_arguments` and `run`. A command opens what
it needs through `swupd.session`, tells the user through the report, and returns its exit status; errors are raised as
`ProjectError` and shown by `swupd.cli`. Modules import nothing heavy at their top, so that `swupd --help`, which reads
all of them, stays quick.
"""
