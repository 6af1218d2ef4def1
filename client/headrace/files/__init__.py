"""Files and directories: private, trusted, and where an engine has its own. Shared by all processes."""
