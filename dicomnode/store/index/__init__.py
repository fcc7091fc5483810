"""What the node knows, as functions on an open session: arrivals, series, jobs and the outbox."""
