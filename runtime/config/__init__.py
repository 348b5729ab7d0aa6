"""What can be asked for: typed, validated options, from which every entrance is made."""
