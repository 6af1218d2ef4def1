"""What all commands of `headrace` share: exit codes, types of options, and text for a terminal."""
