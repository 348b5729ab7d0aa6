"""defectrt puts realistic, labelled defects into photographs of good parts."""

__version__ = "0.1.0"
