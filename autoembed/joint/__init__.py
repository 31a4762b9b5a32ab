"""One search for precision, dimension, sharing and pruning: the whole front from one training."""
