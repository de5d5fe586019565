"""`prise bench grid`: controllers over exec horizons, network evaluations and delays, paired."""
