"""What jobs share: claim an output, open a data set, do its shards, train a network, sum up."""
