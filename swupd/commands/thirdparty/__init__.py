"""One module for each subcommand of `swupd 3rd-party`, like those of `swupd.commands`."""
