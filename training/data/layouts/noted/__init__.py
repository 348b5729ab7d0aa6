"""Layouts whose defects stand in files of annotations instead of masks: one reader a format.

A reader turns files into what they say of each image (`notes.Note`); which image is meant, what
its type is and when a box has become a mask, `notes` decides for all of them. What is drawn
becomes a mask in `shapes`.
"""
