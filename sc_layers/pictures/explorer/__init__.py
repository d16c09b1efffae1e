"""A page on which a person moves a slider and sees what a code does, and where; served to the own machine."""
