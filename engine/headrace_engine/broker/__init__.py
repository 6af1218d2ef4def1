"""The broker process: gives clients leases on workers, and watches the workers' heartbeats."""
