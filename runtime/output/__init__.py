"""What comes out: the dataset on disk, its journal, its formats for other tools, its report."""
