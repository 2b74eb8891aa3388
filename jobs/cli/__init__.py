"""The command line: parsing options, running a job, handling signals."""
