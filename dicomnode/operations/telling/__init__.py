"""What `dicomnode why` tells, a topic a file: each gives plain sentences about a series."""
