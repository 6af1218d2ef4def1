"""The batch process of a job: it holds the keys, and talks to the providers' batch APIs. Started by the job."""
