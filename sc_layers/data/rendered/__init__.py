"""Images that are rendered as they are asked for, with exact factors."""
