"""What a person at a terminal sees and is asked, beyond the lines of `swupd.report`."""
