"""Tools as functions: what a model is told of a function, its arguments read from a call, and its result as text."""
