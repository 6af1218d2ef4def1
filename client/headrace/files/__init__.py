"""Files and directories: opening and locking files safely, trusted directories, an engine's directory. Shared by all processes."""
