"""The collector process: takes spans, keeps them in the engine's store, and has the sinks send them on."""
