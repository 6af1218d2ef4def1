"""The collector process: takes spans, stores them, and sends them to sinks."""
