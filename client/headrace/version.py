"""The version of Headrace, which every process tells its peers."""

VERSION = "0.1.0"
