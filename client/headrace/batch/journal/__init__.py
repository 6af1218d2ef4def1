"""The journal of a batch job: which rows it has, which are recorded, and where their records are. Written so that a kill at any moment loses no record."""
