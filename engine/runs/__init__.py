"""Building blocks of the jobs: claim an output folder, open the images, process shards, train, evaluate."""
